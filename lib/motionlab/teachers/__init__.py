"""Teachers: whoever tells the motion in a clip. The world's exact truth needs none; these serve real video.

`flow.py` and `tracks.py` each hold classical teachers that need no weights and adapters for pretrained ones on disk,
all with one signature. Their error against exact truth is measured with `end_point_error` and `track_error`.
"""
