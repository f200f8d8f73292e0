"""Blind Good/Same/Bad studies (SDG §5.2.2): pairs of pictures to rate, the page for it, and the count."""
