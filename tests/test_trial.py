"""A network is tried as attacks will use it: healed where that is safe, noted, or refused in one line."""

from __future__ import annotations

import copy
import json
import math

import odd_networks as odd
import pytest
import torch
from torch import Tensor, nn

from deepcustom.base.errors import InputError
from deepcustom.training.chance import Guessing
from deepcustom.training.compute import FLOAT32
from deepcustom.training.nets.foreign import Foreign
from deepcustom.training.nets.healed import Healed, Remedy
from deepcustom.training.prediction import gets_right, predict
from deepcustom.training.trial import Trial, tried

PLAIN = Remedy(10)
SIZES = (64, 50)


def a(kind: type[odd.Means], images: tuple[Tensor, Tensor]) -> odd.Means:
    return kind().fitted(*images).eval().requires_grad_(False)


def trial(net: nn.Module, images: tuple[Tensor, Tensor], **more) -> Trial:
    return tried(net, *images, 10, FLOAT32, "mine", **{"sizes": SIZES, **more})


# Network → what is put around it, and words of each note in turn.
HEALED: dict[type[odd.Means], tuple[dict, list[str]]] = {
    odd.Means: ({}, []),
    odd.NumpyInside: (
        {"blind": True},
        ["fails where a gradient is asked for (RuntimeError: Can't call numpy"],
    ),
    odd.NumpyOut: ({"recast": True}, ["no gradient reaches its images"]),
    odd.InPlace: ({"copy": True}, ["writes into the images that it is given, so it gets a copy"]),
    odd.Bfloat16Out: ({"recast": True}, ["logits are bfloat16, and are cast to float32"]),
    odd.HalfOut: ({"recast": True}, ["logits are float16, and are cast to float32"]),
    odd.DoubleOut: ({"recast": True}, ["logits are float64, and are cast to float32"]),
    odd.Double: (
        {"recast": True, "dtype": "float64"},
        ["weights are float64, so images are cast", "logits are float64, and are cast"],
    ),
    odd.Bfloat16: (
        {"recast": True, "dtype": "bfloat16"},
        ["weights are bfloat16, so images are cast", "logits are bfloat16, and are cast"],
    ),
    odd.DoubleOnlyItsWeights: ({}, []),
    odd.Tuple: ({"take": (0,)}, ["it gives more than logits; those are taken from '0'"]),
    odd.AList: ({"take": (1,)}, ["it gives more than logits; those are taken from '1'"]),
    odd.ADict: (
        {"take": ("scores",)},
        ["it gives more than logits; those are taken from 'scores'"],
    ),
    odd.LogitsAndProbabilities: (
        {"take": ("logits",)},
        ["it gives more than logits; those are taken from 'logits'"],
    ),
    odd.ADataclass: (
        {"take": ("logits",)},
        ["it gives more than logits; those are taken from 'logits'"],
    ),
    odd.ANamedTuple: (
        {"take": ("logits",)},
        ["it gives more than logits; those are taken from 'logits'"],
    ),
    odd.AnObject: (
        {"take": ("logits",)},
        ["it gives more than logits; those are taken from 'logits'"],
    ),
    odd.Nested: (
        {"take": ("head", "logits")},
        ["it gives more than logits; those are taken from 'head.logits'"],
    ),
    odd.Convolutional: ({"recast": True}, []),
    odd.Squeezed: ({"recast": True}, []),
    odd.Counts: ({}, ["every pass changes its calls; its answers stay the same"]),
    odd.Remembers: ({}, ["every pass changes its seen; its answers stay the same"]),
    odd.Inference: ({"recast": True}, ["no gradient reaches its images"]),
    odd.NoGrad: ({}, ["no gradient reaches its images"]),
    odd.Detached: ({}, ["no gradient reaches its images"]),
    odd.Rounded: ({}, ["the gradient of 64 of 64 images is zero"]),
    odd.NoWayBack: ({"blind": True}, ["fails where a gradient is asked for"]),
    odd.Dropout: ({}, ["answers the same images differently each time"]),
    odd.SometimesNan: ({}, ["gives nan for"]),
    odd.SomeInfinite: ({}, ["gradient of", "gives nan for"]),
    odd.PerImage: ({}, []),
    odd.Chance: ({}, ["was the normalisation forgotten (mean and std)"]),
    odd.Probabilities: ({}, ["all its logits lie between 0 and 1"]),
    odd.Sigmoids: ({}, ["all its logits lie between 0 and 1"]),
    odd.AtMostEight: ({"most": 8}, ["at most 8 images at a time: larger batches are split"]),
    odd.AtMostEightWithGradient: (
        {"most": 8},
        [
            "a gradient for more than 8 images at once fails (RuntimeError: out of memory), so larger"
        ],
    ),
    odd.ExactlyFive: (
        {"most": 5, "exact": True},
        ["takes exactly 5 images at a time"],
    ),
    odd.Pairs: ({"most": 64, "exact": True}, ["takes exactly 64 images at a time"]),
    odd.TwoOrMore: ({"most": 64, "exact": True}, ["takes exactly 64 images at a time"]),
    odd.NotNone: ({"empty": True}, []),
}


@pytest.mark.parametrize("kind", HEALED, ids=lambda kind: kind.__name__)
def test_what_can_be_healed_is_healed_and_noted(kind, held_out) -> None:
    net = a(kind, held_out)
    before = copy.deepcopy(net.state_dict())
    found = trial(net, held_out)
    parts, notes = HEALED[kind]
    if kind is odd.SomeInfinite:  # 0 / 0 too
        notes = [note for note in notes if any(note in one for one in found.notes)]
    assert found.remedy == Remedy(10, **parts), found
    assert (found.net is net) == (not parts)
    assert len(found.notes) >= len(notes), found.notes
    for note, wanted in zip(found.notes, notes, strict=kind is not odd.SomeInfinite):
        assert note.startswith("mine: "), note
        assert wanted in note
        assert "\n" not in note
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("kind", HEALED, ids=lambda kind: kind.__name__)
def test_a_healed_network_does_all_that_attacks_ask(kind, held_out) -> None:
    """Any number of images, float32 rows, a gradient or none without an error; images stay as they are."""
    x, y = held_out
    net = trial(a(kind, held_out), held_out).net
    for n in (1, 2, 7, 64, 200) if kind is not odd.Rounded else (3,):
        given = x[:n].clone()
        logits = predict(net, given, batch_size=n)
        assert (tuple(logits.shape), logits.dtype) == ((n, 10), torch.float32)
        assert torch.equal(given, x[:n])
        given.requires_grad_()
        asked = net(given)
        assert tuple(asked.shape) == (n, 10)
        if asked.requires_grad:
            torch.autograd.grad(nn.functional.cross_entropy(asked, y[:n]), given)
    assert tuple(predict(net, x[:0]).shape) == (0, 10)


@pytest.mark.parametrize(
    "kind",
    [kind for kind, (parts, _) in HEALED.items() if parts],
    ids=lambda kind: kind.__name__,
)
def test_healing_changes_no_answer(kind, held_out) -> None:
    x = held_out[0]
    plain, healed = a(odd.Means, held_out)(x), trial(a(kind, held_out), held_out).net
    coarse = "16" in kind.__name__ or "Half" in kind.__name__ or kind is odd.NumpyInside
    torch.testing.assert_close(
        predict(healed, x), plain, rtol=0.05 if coarse else 1e-5, atol=1 if coarse else 1e-4
    )


REFUSED: dict[type[odd.Means], str] = {
    odd.Decides: "the network gives (2,), want logits of shape (2, 10)",
    odd.OneHot: "the network gives (2, 10) of int64, want logits of shape (2, 10), one for each class: float",
    odd.Ambiguous: "gives tuple of 0 (2, 10), 1 (2, 10), and any may be the logits: call one logits",
    odd.Words: "the network gives str without tensors, want logits of shape (2, 10)",
    odd.Nothing: "the network gives dict without tensors, want logits of shape (2, 10)",
    odd.Narrow: "the network gives (2, 9), want logits of shape (2, 10)",
    odd.Drifts: "every pass changes its calls, and its answers with them",
    odd.TrainsItself: "depends on the other images of the batch, and it changes norm.running_mean",
    odd.OfTheBatch: "its answer to an image depends on the other images of the batch: it must answer each",
    odd.Hides: "gives other logits where a gradient is asked for than where none is",
    odd.Nan: "gives nan, so logits that are not finite, for all 200 images",
    odd.Constant: "gives the same logits for all 200 images, so it does not look at them",
    odd.Large: "the network refuses 2 images of shape (1, 28, 28): RuntimeError: shape",
    odd.Raises: "the network refuses 2 images of shape (1, 28, 28): KeyError: 'two\\nlines'",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_what_makes_scores_meaningless_is_refused_in_one_line(kind, held_out) -> None:
    net = a(kind, held_out)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(InputError) as caught:
        trial(net, held_out)
    message = str(caught.value)
    assert message.startswith("mine: ")
    assert REFUSED[kind] in message
    assert "\n" not in message
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training for module in net.modules())


def test_every_odd_network_has_a_row() -> None:
    kinds = {
        one for one in vars(odd).values() if isinstance(one, type) and issubclass(one, odd.Means)
    }
    assert kinds == {*HEALED, *REFUSED, odd.Normed}


def test_how_many_images_give_nan_is_told(held_out) -> None:
    black = int((held_out[0].flatten(1)[:, 400] == 0).sum())
    assert 0 < black < 200
    (note,) = trial(a(odd.SometimesNan, held_out), held_out).notes
    assert note == f"mine: it gives nan for {black} of 200 images, which count as wrong"


def test_images_that_give_nan_count_as_wrong() -> None:
    """Also if their label is where argmax finds the nan."""
    logits = torch.tensor([[math.nan, 1, 2], [1, math.nan, 0], [3, 1, 2], [0, 1, 2]])
    assert gets_right(logits, torch.tensor([0, 1, 0, 0])).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("shapes", "parts", "note"),
    [
        ({0: torch.export.Dim("n", min=1, max=20)}, {"most": 20}, "at most 20 images at a time"),
        (None, {"most": 7, "exact": True}, "exactly 7 images at a time"),
        ({0: torch.export.Dim("n", min=2)}, {}, None),  # torch takes one all the same
        ({0: torch.export.Dim("n")}, {}, None),
    ],
)
def test_exported_programs_with_bounds(tmp_path, shapes, parts, note, held_out) -> None:
    from deepcustom.training.nets.exported import load_exported

    net, example = a(odd.Means, held_out), held_out[0][: 7 if shapes is None else 8]
    program = torch.export.export(net, (example,), dynamic_shapes=(shapes,) if shapes else None)
    torch.export.save(program, tmp_path / "a.pt2")
    found = trial(load_exported(tmp_path / "a.pt2"), held_out)
    remedy = {name: getattr(found.remedy, name) for name in ("most", "exact")}
    assert remedy == {"most": None, "exact": False, **parts}
    assert [one for one in found.notes if note and note in one] == list(found.notes)
    for n in (1, 5, 64, 200):
        torch.testing.assert_close(predict(found.net, held_out[0][:n]), net(held_out[0][:n]))


def test_an_exported_program_that_learns_is_found(tmp_path, held_out) -> None:
    from deepcustom.training.nets.exported import load_exported

    class Norm(odd.Normed):
        def forward(self, x: Tensor) -> Tensor:
            return self.logits(self.norm(x))

    net = Norm().fitted(*held_out).train()
    shapes = ({0: torch.export.Dim("n")},)
    torch.export.save(
        torch.export.export(net, (held_out[0][:2],), dynamic_shapes=shapes), tmp_path / "a.pt2"
    )
    with pytest.raises(
        InputError, match="depends on the other images of the batch, and it changes"
    ):
        trial(load_exported(tmp_path / "a.pt2"), held_out)


@pytest.mark.parametrize("kind", [odd.Double, odd.InPlace, odd.ADict, odd.ExactlyFive])
def test_normalisation_and_remedies_go_together(kind, held_out) -> None:
    x = held_out[0]
    net = Foreign(a(kind, held_out), mean=[0.1], std=[0.9])
    healed = trial(net, held_out).net
    wanted = a(odd.Means, held_out)((x - 0.1) / 0.9)
    torch.testing.assert_close(predict(healed, x), wanted, rtol=1e-5, atol=1e-4)


def test_preactivations_of_a_healed_network(held_out) -> None:
    class Hidden(odd.Means):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            assert len(x) <= 8
            return {"logits": self.logits(x.relu())}

    found = trial(Foreign(a(Hidden, held_out)), held_out)
    assert (found.remedy.most, found.remedy.take) == (8, ("logits",))
    seen, logits = found.net.preactivations(held_out[0][:20])
    assert torch.equal(seen["hidden1"], held_out[0][:20])
    assert torch.equal(logits, a(odd.Means, held_out)(held_out[0][:20]))


def test_preactivations_of_no_images_have_their_shapes(held_out) -> None:
    class Viewed(odd.Means):
        def forward(self, x: Tensor) -> Tensor:
            return self.logits(x.view(x.size(0), 1, -1).view(-1, 1, 28, 28).relu())

    found = trial(Foreign(a(Viewed, held_out)), held_out)
    assert found.remedy == Remedy(10, empty=True)
    seen, logits = found.net.preactivations(held_out[0][:0])
    assert {name: tuple(values.shape) for name, values in seen.items()} == {
        "hidden1": (0, 1, 28, 28)
    }
    assert tuple(logits.shape) == (0, 10)


def test_a_remedy_is_plain_data() -> None:
    remedy = Remedy(10, ("head", 0), dtype="float16", most=8, exact=True)
    assert Remedy.from_json(json.loads(json.dumps(remedy.as_json()))) == remedy
    assert not PLAIN.needed
    with pytest.raises(InputError, match="remedy has unknown or missing keys"):
        Remedy.from_json({"classes": 10})
    assert isinstance(Healed(nn.Identity(), remedy), nn.Module)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"dtype": "Tensor"},
            "dtype must be float16 or bfloat16 or float32 or float64, found 'Tensor'",
        ),
        ({"dtype": ["float16"]}, "dtype must be float16"),
        ({"device": "cuda:0"}, "device must be cpu, found 'cuda:0'"),
    ],
)
def test_a_remedy_from_a_file_names_formats_and_devices_that_there_are(part, message) -> None:
    with pytest.raises(InputError, match=message):
        Remedy.from_json({**PLAIN.as_json(), **part})


def test_a_way_that_failed_leaves_no_cast_behind(held_out) -> None:
    net = Foreign(a(odd.Means, held_out))
    plain = net.cast
    Healed(net, Remedy(10, dtype="float64"))
    assert net.cast is torch.float64
    Healed(net, PLAIN)
    assert net.cast is plain


def test_more_images_may_be_shown_than_a_gradient_is_asked_for(held_out) -> None:
    found = trial(a(odd.AtMostEight, held_out), held_out, sizes=(4,), shown=(20,))
    assert found.remedy == Remedy(10, most=8)
    learned = trial(a(odd.AtMostEightWithGradient, held_out), held_out, sizes=(4,), shown=(20,))
    assert learned.remedy == PLAIN


def test_a_gradient_is_asked_for_as_many_images_as_attacks_show_however_few_there_are(
    held_out,
) -> None:
    few = held_out[0][:5], held_out[1][:5]
    found = trial(a(odd.AtMostEightWithGradient, held_out), few, sizes=(20,))
    assert found.remedy == Remedy(10, most=8)
    assert "a gradient for more than 8 images at once fails" in found.notes[0]


def test_labels_that_are_none_are_refused(held_out) -> None:
    with pytest.raises(InputError, match="labels must be 0 to 8, found 0 to 9"):
        tried(a(odd.Means, held_out), *held_out, 9, FLOAT32, "mine")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(784, 10, device="meta")),
            "1.weight lies on the device meta",
        ),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "1.weight has no shape yet"),
        (
            nn.Sequential(nn.BatchNorm2d(1, affine=False, device="meta"), nn.Flatten()),
            "0.running_mean lies on the device meta",
        ),
        (nn.Sequential(nn.LazyBatchNorm2d(affine=False)), "0.running_mean has no shape yet"),
    ],
)
def test_weights_that_do_not_exist_are_told(net, message, held_out) -> None:
    with pytest.raises(InputError, match=message):
        trial(net, held_out)


def test_a_program_that_refuses_eval_mode_is_taken(held_out) -> None:
    net = a(odd.Means, held_out)
    shapes = ({0: torch.export.Dim("n")},)
    program = torch.export.export(net, (held_out[0][:2],), dynamic_shapes=shapes).module()
    with pytest.raises(NotImplementedError):
        program.eval()
    torch.testing.assert_close(predict(trial(program, held_out).net, held_out[0]), net(held_out[0]))


@pytest.mark.filterwarnings("ignore")
def test_compiled_scripted_and_parallel_networks_are_taken(held_out) -> None:
    net = a(odd.Squeezed, held_out)
    scripted = torch.jit.trace(a(odd.Means, held_out), held_out[0][:2])
    for wrapped in (nn.DataParallel(net), nn.Sequential(net), scripted):
        found = trial(wrapped, held_out)
        torch.testing.assert_close(predict(found.net, held_out[0]), net(held_out[0]))


def test_one_image_is_enough(held_out) -> None:
    x, y = held_out
    assert trial(a(odd.Means, held_out), (x[:1], y[:1])).notes == ()
    found = trial(a(odd.InPlace, held_out), (x[:3], y[:3]))
    assert found.remedy.copy
    few = trial(a(odd.AtMostEight, held_out), (x[:3], y[:3]))
    assert (
        few.remedy.most == 8
    )  # batches are as large as they will be, also if there are few images


@pytest.mark.parametrize(
    ("hits", "n", "classes", "at", "near"),
    [
        (12, 100, 10, True, True),
        (16, 100, 10, True, True),
        (19, 100, 10, False, True),
        (30, 100, 10, False, False),
        (0, 100, 10, True, True),
        (3, 3, 2, False, False),  # too few to tell
    ],
)
def test_near_chance_by_hand(hits, n, classes, at, near) -> None:
    found = Guessing.of(torch.arange(n) < hits, torch.arange(n) % classes, classes)
    assert (found.at_chance, found.near_chance) == (at, near), found


def test_guessing_is_answering_with_the_commonest_class() -> None:
    y = torch.tensor([0] * 80 + [1] * 20)
    found = Guessing.of(y == 0, y, 2)
    assert (found.guess, found.at_chance) == (0.8, True)
    assert str(found) == (
        "gets 80.0 % of 100 clean images right, and answering with the commonest class gets 80.0 %"
    )
