"""Images on the shared file system: built or imported once, named, pinned by digest. Floor 1: no torch."""
