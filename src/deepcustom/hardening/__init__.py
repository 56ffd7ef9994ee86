"""Training networks to withstand attacks: a file for each way of hardening, and one table of them."""

FOR_OTHERS = {
    "base": "what a way of hardening is",
    "online": "a network and a generator that learn against each other",
    "ways": "the table",
}
"""The modules that other rooms may import, and what each has."""
