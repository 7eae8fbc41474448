"""A user's prompt files: text, category and known frames."""
import numpy as np
import pytest
from PIL import Image

from motionlab.core.errors import MotionLabError
from motionlab.data.tasks import Task, known_frames, read_tasks


def test_prompt_files_of_every_kind_give_text_and_category(tmp_path):
    (tmp_path / "a.csv").write_text('prompt,category\n"a man, running",Basic Motion\na wheel,rotational\n')
    (tmp_path / "b.txt").write_text("a cat\n\na dog\n")
    (tmp_path / "c.json").write_text('["x", {"prompt": "y", "category": "physics"}]')
    assert read_tasks(tmp_path / "a.csv") == [Task("a man, running", "basic"), Task("a wheel", "rotation")]
    assert read_tasks(tmp_path / "b.txt") == [Task("a cat"), Task("a dog")]
    assert read_tasks(tmp_path / "c.json") == [Task("x"), Task("y", "physics")]
    (tmp_path / "d.csv").write_text("prompt,category\na,unusual_activity\n")
    assert read_tasks(tmp_path / "d.csv", "moviegen") == [Task("a", "unusual activity")]


@pytest.mark.parametrize("name, text, message", [
    ("a.csv", "prompt,category\na,phisics\n", "a.csv, prompt 1: .*Did you mean 'physics'"), ("a.csv", "text\na\n", "cannot be read as prompts"),
    ("a.txt", "\n\n", "holds no prompts"), ("a.xls", "x", "unknown ending"), ("a.json", "{", "cannot be read as prompts"),
    ("a.json", "[1]", "cannot be read as prompts"), ("a.json", '[{"prompt": 3}]', "its prompt is 3"),
    ("a.csv", "prompt,category\n,basic\n", "prompt 1: its prompt is ''"), ("a.csv", "prompt,first\na,no.png\n", "there is no file .*no.png")])
def test_bad_prompt_files_say_what_is_wrong(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(MotionLabError, match=message):
        read_tasks(tmp_path / name)


def test_a_missing_prompt_file_is_named(tmp_path):
    with pytest.raises(MotionLabError, match="No prompt file"):
        read_tasks(tmp_path / "none.csv")


def test_known_frames_are_read_beside_the_file_at_the_generators_size(tmp_path):
    for name, level in (("dark.png", 0), ("light.png", 255)):
        Image.fromarray(np.full((64, 96, 3), level, np.uint8)).save(tmp_path / name)
    (tmp_path / "a.csv").write_text("prompt,first,last\na cat.,dark.png,light.png\na dog.,light.png,\n")
    tasks = read_tasks(tmp_path / "a.csv")
    frames = known_frames(tasks[:1], (32, 32))
    assert frames["first"].shape == frames["last"].shape == (1, 3, 32, 32)
    assert frames["first"].max() < -0.98 and frames["last"].min() > 0.98
    with pytest.raises(MotionLabError, match="1 of 2 tasks have no last frame"):
        known_frames(tasks, (32, 32))
    assert known_frames([Task("a")], (32, 32)) == {}
