"""Programs that build what this project ships.

build_rootfs   the container image's root file systems, without a container engine
sync_client    the synchronous client, from the asynchronous one
offline_base/  the training of bases on drawn worlds
"""
