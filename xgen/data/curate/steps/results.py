"""Names of files that one step writes and another reads."""

MANIFEST_FILE = "manifest.json"
MIXTURES_FILE = "mixtures.yaml"
SEARCH_FILE = "evaluation.npz"
EDGES_FILE, EXACT_FILE, IDS_FILE, UNPLACED_FILE = "edges.npy", "exact.npy", "ids.npy", "unplaced.npy"
LABEL_FILE, SIZE_FILE, STATE_FILE = "label.npy", "size.npy", "state.npy"
REMOVALS_FILE = "removals.npy"
TABLE_FILE, TOKENS_FILE, LEAKS_FILE = "table.arrow", "tokens.bin", "leaks.npy"
# What became of a document: state.npy.
FILTERED, CHOSEN, NEAR, EXACT, SAME_ID, EARLIER = range(6)
