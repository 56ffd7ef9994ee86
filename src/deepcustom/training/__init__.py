"""Networks, the one training loop, and what goes with it: device and precision, weights, checkpoints."""

FOR_OTHERS = {
    "chance": "whether a network does better than guessing",
    "checkpoint": "what an interrupted training had finished",
    "compute": "device, precision and seeds",
    "engine": "who does independent pieces of work",
    "epochs": "the epochs in a checkpoint",
    "fit": "the loop",
    "job": "what travels with every long computation",
    "nets.base": "what a network is, and making one by its name",
    "nets.exported": "programs that torch exported",
    "nets.foreign": "any network as a classifier",
    "nets.healed": "a network with what it lacks put around it",
    "nets.outputs": "which part of an output is the logits",
    "prediction": "what a network says of images",
    "rows": "images that may be unread",
    "short_trial": "a network tried on a few images before it is trained",
    "trial": "a network tried as attacks will use it",
    "weights": "safetensors files",
    "whole": "a training as one task",
}
"""The modules that other rooms may import, and what each has."""
