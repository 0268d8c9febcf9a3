"""`xgen watch`: what runs do now, on one screen, the worst first."""
