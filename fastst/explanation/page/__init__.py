"""A page that plays walks and shows what decided: what it says of every walk, how that is packed, and how the page is put together."""
