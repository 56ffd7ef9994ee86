"""Making adversarial images: the threat model, ART's attacks, and DGNs with the losses they learn on."""

FOR_OTHERS = {
    "art": "ART's FGSM and PGD",
    "bank": "one DGN per class",
    "chunks": "making the images of a chunk",
    "conditional": "one DGN that is told the label",
    "dgn": "what DGNs have in common",
    "dgn_attack": "DGNs as an attack of ART",
    "losses.base": "what a custom loss is",
    "losses.listing": "the losses as a table",
    "norms": "how long a perturbation is",
    "perturb": "perturbing a whole split",
    "relevance": "which pixels a class depends on",
    "suspiciousness": "which units point at a network's failures",
    "threat": "which images count as adversarial",
    "train_bank": "training a bank",
    "train_conditional": "training one DGN that is told the label",
}
"""The modules that other rooms may import, and what each has."""
