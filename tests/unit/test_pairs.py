"""Pairs of scenes, and the edges that control starts from."""

import cv2
import numpy as np
import pytest
import torch

from clockwork_experiments.data import canny
from clockwork_experiments.generate.tasks import PROMPTED, TASKS
from clockwork_experiments.world import captions, edits, pairs, scenes


def _scene(seed: int) -> torch.Tensor:
    image = scenes.render(scenes.sample_scene(seed))
    return torch.from_numpy(np.round(image * 255).astype(np.uint8)).permute(2, 0, 1)


def _unchanged(images: torch.Tensor) -> torch.Tensor:
    return images


@pytest.mark.parametrize("task", TASKS)
def test_any_slice_of_a_split_makes_the_same_pairs(task: str) -> None:
    restorer = _unchanged if task == "synthesis" else None
    whole = pairs.scene_pairs(task, "test", 6, 100, restorer)
    part = pairs.scene_pairs(task, "test", 2, 103, restorer)
    assert len(whole) == 6
    assert whole.inputs.dtype == whole.targets.dtype == torch.uint8
    assert whole.inputs.shape == whole.targets.shape == (6, 3, 64, 64)
    assert part.inputs.equal(whole.inputs[3:5])
    assert part.targets.equal(whole.targets[3:5])
    assert part.prompts == whole.prompts[3:5]
    assert part.target_captions == whole.target_captions[3:5]
    assert part.kinds == whole.kinds[3:5]


def test_an_edit_is_exact_and_says_what_it_does() -> None:
    made = pairs.scene_pairs("edit", "test", 40)
    for index, seed in enumerate(scenes.split_seeds("test", 40)):
        scene = scenes.sample_scene(seed)
        edit = edits.sample_edit(scene, seed)
        before, (after,) = edits.prompts(scene, [edit], seed)
        assert made.inputs[index].equal(_scene(seed))
        assert made.prompts[index] == edit.instruction
        assert made.kinds[index] == edit.kind
        assert made.source_captions[index] == before
        assert made.target_captions[index] == after
        exact = np.round(scenes.render(edit.scene) * 255).astype(np.uint8)
        assert np.array_equal(made.targets[index].permute(1, 2, 0).numpy(), exact)
        assert not made.inputs[index].equal(made.targets[index])
    assert set(made.kinds) == set(edits.EDITS)


@pytest.mark.parametrize("task", ["control", "restoration", "inpainting", "text"])
def test_the_target_of_other_tasks_is_the_scene(task: str) -> None:
    made = pairs.scene_pairs(task, "validation", 3)
    seeds = scenes.split_seeds("validation", 3)
    assert made.targets.equal(torch.stack([_scene(seed) for seed in seeds]))
    words = tuple(captions.captions("validation", 3))
    assert made.source_captions == made.target_captions == words
    assert made.prompts == (words if task in PROMPTED else ("", "", ""))
    assert set(made.kinds) == {task}


def test_text_is_given_nothing_but_the_size() -> None:
    made = pairs.scene_pairs("text", "test", 2)
    assert not made.inputs.any() and made.targets.any()


def test_control_gives_the_edges_of_the_target() -> None:
    made = pairs.scene_pairs("control", "test", 3)
    assert made.inputs.equal(canny.edge_images(made.targets))


def test_restoration_gives_means_of_blocks_with_noise() -> None:
    made = pairs.scene_pairs("restoration", "test", 8)
    blocks = made.inputs.unfold(2, 4, 4).unfold(3, 4, 4)
    assert blocks.amax((-1, -2)).equal(blocks.amin((-1, -2)))
    means = made.targets.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2))
    noise = (blocks[..., 0, 0].float() - means)[(means > 30) & (means < 225)]
    assert noise.std() == pytest.approx(0.03 * 255, rel=0.1)


def test_inpainting_greys_one_rectangle_and_nothing_else() -> None:
    made = pairs.scene_pairs("inpainting", "test", 30)
    shapes = set()
    for given, target in zip(made.inputs, made.targets, strict=True):
        hidden = (given == pairs.GREY).all(dim=0)
        assert given[:, ~hidden].equal(target[:, ~hidden])
        changed = (given != target).any(dim=0).nonzero()
        top, left = changed.amin(dim=0).tolist()
        bottom, right = (changed.amax(dim=0) + 1).tolist()
        assert hidden[top:bottom, left:right].all()
        assert 15 <= bottom - top <= 40 and 15 <= right - left <= 40
        shapes.add((top, left, bottom, right))
    assert len(shapes) == 30


def test_synthesis_starts_from_what_the_restorer_makes_of_blurred_scenes() -> None:
    seen = []

    def restorer(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return 255 - images

    made = pairs.scene_pairs("synthesis", "test", 3, 0, restorer)
    blurred, sharp = pairs.blurred_scenes("test", 3)
    assert torch.cat(seen).equal(blurred)
    assert made.inputs.equal(255 - blurred)
    assert made.targets.equal(sharp)

    for soft, target in zip(blurred, sharp, strict=True):
        wanted = cv2.GaussianBlur(
            target.permute(1, 2, 0).numpy().astype(np.float32), (0, 0), pairs.BLUR
        )
        noise = soft.permute(1, 2, 0).numpy() - wanted
        assert noise.std() == pytest.approx(0.01 * 255, rel=0.05)
        assert abs(noise.mean()) < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("draw", "test", 1), "task 'draw' is not one of edit, control, restoration"),
        (("edit", "test", 0), "count 0 is less than 1"),
        (("edit", "tests", 1), "split 'tests' is not one of"),
        (("synthesis", "test", 1), "synthesis needs a restorer"),
        (("edit", "test", 1, 0, _unchanged), "no other task has one"),
    ],
)
def test_wrong_pairs_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairs.scene_pairs(*arguments)  # type: ignore[arg-type]


def test_edges_outline_a_square_whatever_its_colour() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24, 1] = 255
    found = canny.edges(image)
    assert set(np.unique(found)) == {0, 255}
    assert (found[..., :1] == found).all()
    rows, columns = np.nonzero(found[..., 0])
    assert 7 <= rows.min() <= 8 and 23 <= rows.max() <= 24
    assert 7 <= columns.min() <= 8 and 23 <= columns.max() <= 24
    assert not found[12:20, 12:20].any()
    assert np.array_equal(found, canny.edges(image[..., ::-1]))


def test_edges_need_a_gradient_above_the_upper_threshold() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 20
    # The Sobel gradient of a step of 20 is 80.
    assert not canny.edges(image).any()
    assert canny.edges(image, 30, 60).any()


@pytest.mark.parametrize(
    ("image", "low", "high", "message"),
    [
        (np.zeros((4, 4), np.uint8), 100, 200, "not uint8"),
        (np.zeros((4, 4, 3)), 100, 200, "image is float64"),
        (np.zeros((4, 4, 3), np.uint8), 200, 100, "thresholds 200 and 100"),
    ],
)
def test_wrong_edges_are_refused(
    image: np.ndarray, low: float, high: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        canny.edges(image, low, high)
