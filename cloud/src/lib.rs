//! CloudCore: picks the cloud's modules, joins and runs them.
