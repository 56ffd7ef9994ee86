"""How strong a generator is for its price: many of them, which differ from one another in one thing each."""
