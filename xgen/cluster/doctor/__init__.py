"""What `xgen doctor` looks at, and what it makes of it: pure judges of facts, and few files that ask for those."""
