"""Making adversarial images: the threat model, ART's attacks, and DGNs with the losses they learn on."""
