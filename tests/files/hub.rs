//! The hub: its cache without a network, revisions, and a download from a server of our own.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device};
use qstar::models::{Purpose, load_folder, load_model, read_model, save_folder, save_model};

use super::process::child;
use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The cache of `HF_HOME` with these files of a repository in it, or a printed reason.
fn cached(repository: &str, files: &[&str]) -> Option<Source> {
    if std::env::var_os("HF_HOME").is_none() {
        println!("skipped: HF_HOME is not set, so there is no cache of the hub to read {repository} from");
        return None;
    }
    let cache = hf_hub::Cache::from_env().model(repository.to_string());
    if let Some(file) = files.iter().find(|file| cache.get(file).is_none()) {
        println!("skipped: {file} of {repository} is not in the hub's cache");
        return None;
    }
    Some(Source::hub(repository))
}

#[test]
fn the_small_real_models_are_read_from_the_cache() {
    for (repository, parameters) in [("qstar/stories260K", 260_032), ("qstar/slm4096-gpt2", 211_712)] {
        let Some(source) = cached(repository, &["config.json", "model.safetensors"]) else { continue };
        let stored = read_model(&source, Purpose::LanguageModel, DType::F32, &Device::Cpu).unwrap();
        let count: usize = stored.tensors.values().map(Tensor::elem_count).sum();
        assert_eq!(count, parameters, "{repository}");
        load_model(&source).unwrap();
        // The same as a folder.
        let folder = source.config().unwrap().parent().unwrap().to_path_buf();
        let from_folder = super::folder(&folder);
        let other = read_model(&from_folder, Purpose::LanguageModel, DType::F32, &Device::Cpu).unwrap();
        assert_same(&stored.tensors, &other.tensors);
        let tokenizer = source.file("tokenizer.json").unwrap();
        assert!(tokenizers::Tokenizer::from_file(tokenizer).is_ok());
    }
}

#[test]
fn the_configurations_of_the_cache_are_read() {
    for (repository, width, positions, vocabulary) in [
        ("openai-community/gpt2", 768, 1024, 50_257),
        ("EleutherAI/pythia-1.4b", 2048, 2048, 50_304),
        ("EleutherAI/pythia-6.9b", 4096, 2048, 50_432),
        ("meta-llama/Llama-2-7b-hf", 4096, 4096, 32_000),
        ("meta-llama/Llama-2-13b-hf", 5120, 4096, 32_000),
        ("qstar/stories260K", 64, 512, 512),
        ("qstar/slm4096-gpt2", 64, 128, 54),
    ] {
        let Some(source) = cached(repository, &["config.json"]) else { continue };
        let config = Config::read(&source.config().unwrap()).unwrap();
        assert_eq!((config.hidden_size(), config.max_positions(), config.vocab_size()), (width, positions, vocabulary));
    }
}

#[test]
fn names_of_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(Source::parse(path).unwrap(), Source::Folder(path.into()));
    assert_eq!(Source::parse("a/b").unwrap(), Source::hub("a/b"));
    let pinned = Source::Hub { repository: "a/b".into(), revision: COMMIT.into() };
    assert_eq!(Source::parse(&format!("a/b@{COMMIT}")).unwrap(), pinned);
    for name in ["", "gpt2", "/no/such/folder", "./no-such-folder", "a/../b", "a/b@", "a/ b", "../b"] {
        assert_error(Source::parse(name), &[name, "neither a folder"]);
    }
    assert_error(super::folder(folder.path()).config(), &[path, "config.json"]);
}

/// Reads the model that the environment names and says where its files were, or why not.
#[test]
#[ignore = "a process of its own, started by the tests below"]
fn child_reads_a_model() {
    let Ok(name) = std::env::var("QSTAR_TEST_SOURCE") else { return };
    let source = Source::parse(&name).unwrap();
    match read_model(&source, Purpose::LanguageModel, DType::F32, &Device::Cpu) {
        Ok(stored) => {
            let params = qstar::nn::Params::from_tensors(stored.tensors).unwrap();
            println!("\nread {}", params.digest().unwrap());
        }
        Err(error) => println!("\nerror {error:#}"),
    }
}

/// What a process says that reads `source` with the cache `home` and the hub at `endpoint`.
fn read_in(home: &Path, endpoint: &str, source: &str, more: &[(&str, &str)]) -> String {
    let mut command = child("hub::child_reads_a_model");
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE"]
    {
        command.env_remove(proxy);
    }
    command.env("HF_HOME", home).env("HF_ENDPOINT", endpoint).env("QSTAR_TEST_SOURCE", source);
    command.envs(more.iter().copied());
    let output = command.stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = text.lines().find(|line| line.starts_with("read ") || line.starts_with("error "));
    said.unwrap_or_else(|| panic!("the child said: {text}")).to_string()
}

/// A port at which nobody answers.
const NOBODY: &str = "http://127.0.0.1:9";

/// A repository in a cache, as Python's huggingface_hub writes it for a commit: without a reference.
fn snapshot(home: &Path, commit: &str) -> PathBuf {
    home.join("hub/models--a--b/snapshots").join(commit)
}

#[test]
fn a_cache_without_a_network_is_enough() {
    let home = tempfile::tempdir().unwrap();
    let model = gpt2();
    let digest = format!("read {}", model.params.digest().unwrap());
    let source = format!("a/b@{COMMIT}");
    // In shards: that there is no single file must not send anyone to the network.
    save_model(&snapshot(home.path(), COMMIT), &model.config, &tensors(&model), None, 1500).unwrap();
    assert_eq!(read_in(home.path(), NOBODY, &source, &[]), digest);
    let message = read_in(home.path(), NOBODY, "a/b", &[]);
    assert!(message.contains("a/b: config.json is neither in the hub's cache"), "{message}");
    let refs = home.path().join("hub/models--a--b/refs");
    fs::create_dir_all(&refs).unwrap();
    write(&refs.join("main"), COMMIT);
    assert_eq!(read_in(home.path(), NOBODY, "a/b", &[]), digest);
    let files = fs::read_dir(snapshot(home.path(), COMMIT)).unwrap().map(|file| file.unwrap().path());
    let shard = files.into_iter().find(|path| path.display().to_string().contains("model-00002-of-")).unwrap();
    fs::remove_file(&shard).unwrap();
    let message = read_in(home.path(), NOBODY, "a/b", &[]);
    for part in ["model.safetensors.index.json: a shard is missing", shard.file_name().unwrap().to_str().unwrap()] {
        assert!(message.contains(part), "{message}");
    }
    let message = read_in(home.path(), NOBODY, "a/b", &[("HF_HUB_OFFLINE", "1")]);
    assert!(message.contains("HF_HUB_OFFLINE is set"), "{message}");
    for file in fs::read_dir(snapshot(home.path(), COMMIT)).unwrap() {
        let file = file.unwrap().path();
        if file.file_name().unwrap() != "config.json" {
            fs::remove_file(file).unwrap();
        }
    }
    let message = read_in(home.path(), NOBODY, "a/b", &[]);
    for part in ["a/b: no weights are in the hub's cache", "pytorch_model.bin", "the hub cannot be asked"] {
        assert!(message.contains(part), "{message}");
    }
}

/// A server of one repository `a/b` that answers as the hub does, and what was asked of it.
struct Hub {
    endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn serve(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        // The thread ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &files, &seen);
            }
        });
        Self { endpoint, asked }
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap_or_default().to_string();
    let range = lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_string));
    asked.lock().unwrap().push(path.clone());
    let listing = json!({"sha": COMMIT, "siblings": files.keys().map(|f| json!({"rfilename": f})).collect::<Vec<_>>()});
    let (status, headers, body) = if path == "/api/models/a/b/revision/main" {
        ("200 OK", String::new(), listing.to_string().into_bytes())
    } else if let Some(file) = path.strip_prefix("/a/b/resolve/main/").and_then(|name| files.get(name)) {
        let range = range.unwrap_or("0-".into());
        let (from, to) = range.split_once('-').unwrap();
        let from: usize = from.parse().unwrap();
        let to = to.parse().map_or(file.len(), |to: usize| (to + 1).min(file.len()));
        let headers = format!(
            "etag: \"{:x}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {from}-{}/{}\r\n",
            file.iter().fold(7u64, |hash, &byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte))),
            to - 1,
            file.len()
        );
        ("206 Partial Content", headers, file[from..to].to_vec())
    } else {
        ("404 Not Found", String::new(), Vec::new())
    };
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(folder).unwrap().map(file).collect()
}

#[test]
fn files_are_downloaded_once_and_then_found() {
    let model = llama();
    let digest = format!("read {}", model.params.digest().unwrap());
    for limit in [u64::MAX, 700] {
        let (saved, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        save_model(saved.path(), &model.config, &tensors(&model), None, limit).unwrap();
        let hub = Hub::serve(contents(saved.path()));
        assert_eq!(read_in(home.path(), &hub.endpoint, "a/b", &[]), digest);
        let asked = std::mem::take(&mut *hub.asked.lock().unwrap());
        assert!(asked.iter().any(|path| path.ends_with("config.json")), "{asked:?}");
        assert_eq!(read_in(home.path(), &hub.endpoint, "a/b", &[]), digest);
        assert!(hub.asked.lock().unwrap().is_empty(), "asked again for {:?}", hub.asked.lock().unwrap());
        assert_eq!(read_in(home.path(), NOBODY, "a/b", &[]), digest);
        load_folder(&snapshot(home.path(), COMMIT)).unwrap();
    }
}

#[test]
fn a_repository_without_weights_says_what_was_looked_for() {
    let saved = tempfile::tempdir().unwrap();
    save_folder(&gpt2(), saved.path()).unwrap();
    let mut files = contents(saved.path());
    let weights = files.remove("model.safetensors").unwrap();
    files.insert("model.gguf".into(), weights);
    let hub = Hub::serve(files);
    let home = tempfile::tempdir().unwrap();
    let message = read_in(home.path(), &hub.endpoint, "a/b", &[]);
    for part in ["a/b: no weights are there", "model.safetensors.index.json", "pytorch_model.bin"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn files_of_two_commits_are_not_mixed() {
    let saved = tempfile::tempdir().unwrap();
    save_folder(&gpt2(), saved.path()).unwrap();
    let hub = Hub::serve(contents(saved.path()));
    let home = tempfile::tempdir().unwrap();
    // The configuration of an older commit is in the cache, the weights are not.
    let old = snapshot(home.path(), &COMMIT.replace('0', "f"));
    let refs = home.path().join("hub/models--a--b/refs");
    for folder in [&old, &refs] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::copy(saved.path().join("config.json"), old.join("config.json")).unwrap();
    write(&refs.join("main"), COMMIT.replace('0', "f"));
    let message = read_in(home.path(), &hub.endpoint, "a/b", &[]);
    assert!(message.contains("of two commits") && message.contains("try again"), "{message}");
    assert!(read_in(home.path(), &hub.endpoint, "a/b", &[]).starts_with("read "));
}
