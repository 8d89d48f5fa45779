"""The world of figures: people, robots and bears that act, drawn with their ground truth.

pose      a skeleton of 12 joints, and six actions as cycles
looks     what a subject is made of: parts that hang on the skeleton
places    textured grounds with a horizon, seen by a camera that may pan
styles    plain, pencil sketch, pixel art, comic
scene     actors in a place: frames, and for every frame joints, silhouettes, depth order and optical flow
words     captions, and the combinations that training never sees
"""
