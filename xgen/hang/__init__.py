"""Hangs: a process beside each rank sees that nothing moves, writes down where every rank stands, and ends it.

Standard library only, and nothing of the rest of xgen: the process is there in a few hundredths of a second, and works
while the rank does not. What it imports before it has to act is counted in milliseconds of CPU, for each rank of each
attempt: named tuples, for `dataclasses` alone would be a third of it, and the rest when it is needed.
"""
