"""Names of files that one step writes and another reads."""

SPEC_FILE = "spec.json"  # in the work folder
MANIFEST_FILE = "manifest.json"
MIXTURES_FILE = "mixtures.yaml"
SEARCH_FILE = "evaluation.npz"
EDGES_FILE, EXACT_FILE, UNPLACED_FILE = "edges.npy", "exact.npy", "unplaced.npy"
IDS_FILE, FIRST_FILE = "ids.npy", "first.npy"  # records whose id was there, and of each the record that had it first
LABEL_FILE, SIZE_FILE, STATE_FILE = "label.npy", "size.npy", "state.npy"
REMOVALS_FILE = "removals.npy"
TABLE_FILE, TOKENS_FILE, LEAKS_FILE = "table.arrow", "tokens.bin", "leaks.npy"
# What became of a document: state.npy.
FILTERED, CHOSEN, NEAR, EXACT, SAME_ID, EARLIER = range(6)
