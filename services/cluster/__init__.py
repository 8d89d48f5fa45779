"""A cluster of many machines: what an operator fills in, the files made from it, and what its head runs.

settings    what an operator fills in, and what is wrong with it
render      from deploy/*.yaml and the settings to a cluster file and the folder that every node gets
kubernetes  likewise to manifests
head        on the head: MLflow, the scheduler and the gateway onto a running Ray, again and again
serve       what KubeRay starts instead
cache       on every node: the bases' weights into its cache
backup      the registry into a folder and back
cli         `tav cluster render|head|mlflow|cache|backup|restore`
"""
