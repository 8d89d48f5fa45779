"""Untrusted files, from bytes to pixels as a player shows them. No torch.

source       one video stream of a file, frame by frame
integrity    whether a file has all the bytes that it says it has
timestamps   when frames are shown, and which of them become a clip
display      pixels as shown: turned, square, progressive, BT.709, resized to cover
tonemap      HDR and wide gamuts as a BT.709 display shows them
decoder      all of it in a process of its own, within limits
sandbox      what the kernel forbids that process (Landlock)
"""
