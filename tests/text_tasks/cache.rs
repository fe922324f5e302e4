use std::path::PathBuf;

use qstar::models::Source;

/// A file of a data set in the cache, or a printed reason.
pub fn dataset_file(repository: &str, name: &str) -> Option<PathBuf> {
    found(Source::dataset(repository), name)
}

/// A file of a model's repository in the cache, or a printed reason.
pub fn model_file(repository: &str, name: &str) -> Option<PathBuf> {
    found(Source::hub(repository), name)
}

fn found(source: Source, name: &str) -> Option<PathBuf> {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {source} from");
        return None;
    }
    let path = source.file_if_there(name).unwrap();
    if path.is_none() {
        println!("skipped: {name} of {source} is not in the hub's cache");
    }
    path
}
