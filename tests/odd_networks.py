"""Odd but plausible networks, each around a linear one that reads digits, for the table of trials."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Means(nn.Module):
    """The class whose mean image is nearest: linear, and right on nine in ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(784, 10)

    def fitted(self, x: Tensor, y: Tensor) -> Means:
        means = torch.stack([x[y == label].mean(0).flatten() for label in range(10)])
        with torch.no_grad():
            self.scores.weight.copy_(means / 5)
            self.scores.bias.copy_(-means.square().sum(1) / 10)
        return self

    def logits(self, x: Tensor) -> Tensor:
        return self.scores(x.flatten(1))

    def forward(self, x: Tensor):
        return self.logits(x)


class NumpyInside(Means):  # a defence in numpy: bit depth, JPEG, median filter
    def forward(self, x):
        return self.logits(torch.from_numpy(np.round(x.numpy() * 15) / 15).float())


class NumpyOut(Means):
    def forward(self, x):
        return self.logits(x).detach().numpy()


class InPlace(Means):  # wants 0..255, scales what it is given
    def forward(self, x):
        x *= 255
        return self.logits(x / 255)


class Bfloat16Out(Means):  # mixed precision inside
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.logits(x)


class HalfOut(Means):
    def forward(self, x):
        return self.logits(x).half()


class DoubleOut(Means):
    def forward(self, x):
        return self.logits(x).double()


class Double(Means):
    def __init__(self) -> None:
        super().__init__()
        self.double()


class Bfloat16(Means):
    def __init__(self) -> None:
        super().__init__()
        self.bfloat16()


class DoubleOnlyItsWeights(Means):  # casts by itself
    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, x):
        return self.logits(x.double()).float()


class Decides(Means):
    def forward(self, x):
        return self.logits(x).argmax(1)


class OneHot(Means):
    def forward(self, x):
        return F.one_hot(self.logits(x).argmax(1), 10)


class Tuple(Means):
    def forward(self, x):
        return self.logits(x), x.flatten(1)


class AList(Means):
    def forward(self, x):
        return [x.mean(), self.logits(x)]


class ADict(Means):
    def forward(self, x):
        return {"features": x.flatten(1), "scores": self.logits(x)}


class LogitsAndProbabilities(Means):
    def forward(self, x):
        return {"probabilities": self.logits(x).softmax(1), "logits": self.logits(x)}


class Ambiguous(Means):
    def forward(self, x):
        return self.logits(x), self.logits(x) / 2


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class ADataclass(Means):
    def forward(self, x):
        return Output(None, self.logits(x))


Named = namedtuple("Named", ["hidden", "logits"])


class ANamedTuple(Means):
    def forward(self, x):
        return Named(x.flatten(1), self.logits(x))


class AnObject(Means):
    def forward(self, x):
        return SimpleNamespace(logits=self.logits(x))


class Nested(Means):
    def forward(self, x):
        return {"head": {"logits": self.logits(x)}, "aux": None}


class Words(Means):
    def forward(self, x):
        return "seven"


class Nothing(Means):
    def forward(self, x):
        return {}


class Narrow(Means):
    def forward(self, x):
        return self.logits(x)[:, :9]


class Convolutional(Means):
    def forward(self, x):
        return self.logits(x)[:, :, None, None]


class Squeezed(Means):  # drops the axis of the batch, if one image is alone
    def forward(self, x):
        return self.logits(x).squeeze()


class Counts(Means):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.logits(x)


class Remembers(Means):  # a memory that grows
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, 784))

    def forward(self, x):
        self.seen = torch.cat([self.seen, x.detach().flatten(1)[:1]])
        return self.logits(x)


class Drifts(Counts):
    def forward(self, x):
        self.calls += 0.1
        return self.logits(x) + self.calls * x.flatten(1)[:, 400:410]


class Normed(Means):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)


class TrainsItself(Normed):
    def forward(self, x):
        self.norm.train()
        return self.logits(self.norm(x))


class OfTheBatch(Means):
    def forward(self, x):
        return self.logits((x - x.mean()) / x.std())


class Inference(Means):
    def forward(self, x):
        with torch.inference_mode():
            return self.logits(x)


class NoGrad(Means):
    @torch.no_grad()
    def forward(self, x):
        return self.logits(x)


class Detached(Means):
    def forward(self, x):
        return self.logits(x.detach())


class Rounded(Means):
    def forward(self, x):
        return self.logits((x * 15).round() / 15)


class NoWayBack(Means):
    """Its gradient fails on the way back, not on the way there."""

    def forward(self, x):
        class Step(torch.autograd.Function):
            @staticmethod
            def forward(ctx, z):
                return z.clone()

        return self.logits(Step.apply(x))


class Hides(Means):  # shows attacks another network
    def forward(self, x):
        return -self.logits(x) if x.requires_grad else self.logits(x)


class Dropout(Means):
    def forward(self, x):
        return self.logits(F.dropout(x, 0.3, training=True))


class SometimesNan(Means):  # nan where a pixel is black, none on a grey image
    def forward(self, x):
        return self.logits(x) + x.flatten(1)[:, 400:401].log() * 0


class Nan(Means):
    def forward(self, x):
        return self.logits(x) * torch.nan


class SomeInfinite(Means):
    def forward(self, x):
        return self.logits(x) / (x.flatten(1)[:, 400:401] > 0)


class PerImage(Means):  # standardises each image by itself; a constant image has std 0
    def forward(self, x):
        z = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
        return self.logits(z * 0.3 + 0.25)


class Chance(Means):  # trained on normalised images, and nobody passed --mean and --std
    def forward(self, x):
        return self.logits(x * 1e-3 + 3)


class Probabilities(Means):
    def forward(self, x):
        return self.logits(x).softmax(1)


class Sigmoids(Means):
    def forward(self, x):
        return self.logits(x).sigmoid()


class Constant(Means):
    def forward(self, x):
        return self.scores.bias.expand(len(x), 10)


class AtMostEight(Means):
    def forward(self, x):
        if len(x) > 8:
            raise RuntimeError("out of memory")
        return self.logits(x)


class AtMostEightWithGradient(Means):
    def forward(self, x):
        if len(x) > 8 and torch.is_grad_enabled():
            raise RuntimeError("out of memory")
        return self.logits(x)


class ExactlyFive(Means):
    def forward(self, x):
        return self.logits(x.view(5, 1, 28, 28))


class Pairs(Means):
    def forward(self, x):
        return torch.cat([self.logits(part) for part in x.view(-1, 2, 1, 28, 28)])


class TwoOrMore(Means):
    def forward(self, x):
        if len(x) < 2:
            raise ValueError("Expected more than 1 value per channel when training")
        return self.logits(x)


class NotNone(Means):  # a view that cannot tell the size of an empty batch
    def forward(self, x):
        return self.scores(x.view(len(x), -1))


class Large(Means):
    def forward(self, x):
        return self.logits(x.reshape(-1, 3, 224, 224).mean(1, keepdim=True))


class Raises(Means):
    def forward(self, x):
        raise KeyError("two\nlines")
