"""Teachers: whoever tells the motion in a clip. The world's exact truth needs none; these serve real video.

`flow.py` and `tracks.py` each call one of several by its name, all with one signature: classical ones that need no
weights (`flow.dis_flow`, `following.py`) and pretrained ones on disk (`flow.raft_flow`, `cotracker.py`). Their error
against exact truth is measured with `end_point_error` and `track_error`.
`masks.py` follows a whole object and hands out what the tracker remembers (SAM2: `sam2.py`, its sizes `sam2_build.py`, its weights
`sam2_files.py`); `prompts.py` shows it the object, `detector.py` finds one by words. `patches.py` is what single pictures say.
"""
