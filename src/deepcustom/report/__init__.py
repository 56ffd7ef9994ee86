"""What people read: tables, sentences, pictures, the page and the cards, all made from results."""
