//! EdgeCore: picks the node's modules, joins and runs them.
