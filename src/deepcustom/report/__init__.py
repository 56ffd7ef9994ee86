"""What people read: tables, sentences, pictures, the page and the cards, all made from results."""

FOR_OTHERS = {
    "blocks": "tables for the terminal",
    "cards": "a card for a model",
    "figures": "pictures",
    "page": "the page of a subject",
    "printed": "what a scoring found, for the terminal",
    "tables": "tables for Markdown",
    "web.page": "one page for a whole project",
    "web.subject": "what that page shows of a subject",
}
"""The modules that other rooms may import, and what each has."""
