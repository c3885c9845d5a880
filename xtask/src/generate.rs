//! Writes what is generated from the sources: the reference of the configuration, the ratchet.
//! The reference is the product's own text, so its test writes it: linking the product here would
//! make every chore as slow to build as the product.

use crate::tidy::{sizes, tree::Tree};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The test that compares docs/configuration.md with the reference, and writes it on demand.
const REFERENCE_TEST: &str = "config::tests::reference";

pub fn run(root: &Path) -> Result<()> {
    let path = root.join(sizes::RATCHET);
    let tree = Tree::read(root)?;
    fs::write(&path, sizes::shrunk(&tree)).with_context(|| path.display().to_string())?;

    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--quiet", "--package", "tandem", "--lib", REFERENCE_TEST])
        .env("UPDATE", "1")
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the reference of the configuration could not be written");
    Ok(())
}
