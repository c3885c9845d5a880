//! Carries decisions out: gathers a view, asks the core, executes its effects.
