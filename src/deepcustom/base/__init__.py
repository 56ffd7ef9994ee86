"""What every room uses: settings as they are checked, what can go wrong, and progress."""
