//! The embedded world: what a task promises, and what its families promise.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use qstar::tasks::micro::{
    CLEAN_SHARE, EOS, Family, MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, MicroWorld, PAD, PREFERENCE_TEMPERATURE,
};
use qstar::tasks::{Prompt, Quality, Split, Task};

const TRAIN_PROMPTS: u64 = 60_000;
const TEST_PROMPTS: u64 = 5_000;

fn world() -> MicroWorld {
    MicroWorld::new().unwrap()
}

/// The first `count` prompts of one family.
fn prompts(world: &MicroWorld, family: usize, count: u64) -> impl Iterator<Item = Prompt> {
    let families = Family::ALL.len() as u64;
    (0..count).map(move |i| world.prompt(Split::Train, i * families + family as u64))
}

fn ids(world: &MicroWorld, text: &str) -> Vec<u32> {
    world.tokenizer().encode(text, false).unwrap().get_ids().to_vec()
}

#[test]
fn the_first_prompts_are_committed() {
    let world = world();
    let train: Vec<String> = (0..5).map(|index| world.prompt(Split::Train, index).text).collect();
    assert_eq!(train, TRAIN_LITERALS);
    let test: Vec<String> = (0..5).map(|index| world.prompt(Split::Test, index).text).collect();
    assert_eq!(test, TEST_LITERALS);
}

const TRAIN_LITERALS: [&str; 5] = [
    "reply jon asks about garden and music without tree concert =>",
    "summary ferry ! sled ! painting bread ! bread ! =>",
    "code w = 4 x = 9 y = 2 print 11 =>",
    "translation new bus sells blue tree =>",
    "questions leo statue ; eve train ; iris book ; ? iris =>",
];
const TEST_LITERALS: [&str; 5] = [
    "reply gina asks about sleep and study without teacher tent =>",
    "summary soup cabin ! rose ! sled ! rose ! =>",
    "code w = 1 y = 8 z = 6 print 8 =>",
    "translation small sled likes new hotel =>",
    "questions cleo museum ; dan sled ; kira choir ; ? kira =>",
];

#[test]
fn two_worlds_are_one() {
    let (first, second) = (world(), world());
    for index in 0..200 {
        let prompt = first.prompt(Split::Train, index);
        assert_eq!(prompt, second.prompt(Split::Train, index));
        for draw in 0..3 {
            assert_eq!(
                first.demonstration(&prompt, Quality::Mixed, draw),
                second.demonstration(&prompt, Quality::Mixed, draw)
            );
            assert_eq!(first.preference(&prompt, draw), second.preference(&prompt, draw));
        }
    }
}

#[test]
fn every_index_is_valid() {
    let world = world();
    for index in [0, 1 << 32, u64::MAX - 1, u64::MAX] {
        for split in [Split::Train, Split::Test] {
            let prompt = world.prompt(split, index);
            assert_eq!(prompt.family, Family::of(index).name());
            world.demonstration(&prompt, Quality::Mixed, u64::MAX);
        }
    }
}

#[test]
fn each_family_has_ten_thousand_train_prompts() {
    let world = world();
    for (place, family) in Family::ALL.iter().enumerate() {
        let distinct: HashSet<String> = prompts(&world, place, 20_000).map(|p| p.text).collect();
        assert!(distinct.len() >= 10_000, "{}: {}", family.name(), distinct.len());
    }
}

#[test]
fn no_test_combination_is_trained_on() {
    let world = world();
    let seen = |split, count| -> (HashSet<u64>, HashSet<String>) {
        (0..count)
            .map(|index| world.prompt(split, index))
            .map(|prompt| (world.combination(&prompt), prompt.text))
            .unzip()
    };
    let (train, train_texts) = seen(Split::Train, TRAIN_PROMPTS);
    let (test, test_texts) = seen(Split::Test, TEST_PROMPTS);
    assert!(train.is_disjoint(&test));
    assert!(train_texts.is_disjoint(&test_texts));
}

#[test]
fn test_combinations_are_many() {
    let world = world();
    let mut combinations: HashMap<&str, HashSet<u64>> = HashMap::new();
    for index in 0..TEST_PROMPTS {
        let prompt = world.prompt(Split::Test, index);
        combinations.entry(prompt.family).or_default().insert(world.combination(&prompt));
    }
    for (family, combinations) in combinations {
        assert!(combinations.len() >= 80, "{family}: {}", combinations.len());
    }
}

#[test]
fn prompts_and_demonstrations_are_short() {
    let world = world();
    let mut longest = 0;
    for index in 0..20_000 {
        let prompt = world.prompt(Split::Train, index);
        longest = longest.max(prompt.tokens.len());
        for quality in [Quality::Clean, Quality::Mixed] {
            let response = world.demonstration(&prompt, quality, index % 7);
            assert!((2..=MAX_RESPONSE_TOKENS).contains(&response.len()), "{}", prompt.text);
            let (last, words) = response.split_last().unwrap();
            assert_eq!(*last, EOS);
            assert!(words.iter().all(|&id| id != EOS && id != PAD));
        }
    }
    assert!(longest <= MAX_PROMPT_TOKENS, "{longest}");
    assert!(world.vocab_size() <= 220);
    assert_eq!(world.max_response_tokens(), MAX_RESPONSE_TOKENS);
}

#[test]
fn clean_demonstrations_have_full_reward() {
    let world = world();
    for split in [Split::Train, Split::Test] {
        for index in 0..10_000 {
            let prompt = world.prompt(split, index);
            let response = world.demonstration(&prompt, Quality::Clean, index % 5);
            assert_eq!(world.reward(&prompt, &response), 1.0, "{}", prompt.text);
        }
    }
}

#[test]
fn mixed_demonstrations_are_half_good() {
    let world = world();
    for (place, family) in Family::ALL.iter().enumerate() {
        let rewards: Vec<f64> = prompts(&world, place, 10_000)
            .map(|prompt| world.reward(&prompt, &world.demonstration(&prompt, Quality::Mixed, 0)))
            .collect();
        let count = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / count;
        let full = rewards.iter().filter(|&&reward| reward == 1.0).count() as f64 / count;
        let graded: HashSet<u64> = rewards.iter().map(|reward| reward.to_bits()).collect();
        println!("{:12} mean {mean:.3}  full {full:.3}  levels {}", family.name(), graded.len());
        // In `questions` a wrong thing with the right name is half right.
        assert!((0.5..0.65).contains(&mean), "{}: {mean}", family.name());
        assert!((CLEAN_SHARE - 0.02..0.45).contains(&full), "{}: {full}", family.name());
        assert!(graded.len() >= 5, "{}: {}", family.name(), graded.len());
    }
}

#[test]
fn a_cut_response_keeps_half() {
    let world = world();
    for index in 0..50 {
        let prompt = world.prompt(Split::Train, index);
        let mut response = world.demonstration(&prompt, Quality::Clean, 0);
        response.pop();
        assert_eq!(world.reward(&prompt, &response), 0.5);
    }
}

#[test]
fn a_special_token_inside_is_a_wrong_word() {
    let world = world();
    for index in 0..50 {
        let prompt = world.prompt(Split::Train, index);
        let clean = world.demonstration(&prompt, Quality::Clean, 0);
        for special in [EOS, PAD, u32::MAX] {
            let mut response = clean.clone();
            response.insert(clean.len() - 1, special);
            assert!(world.reward(&prompt, &response) < 1.0, "{}", prompt.text);
        }
        assert_eq!(world.reward(&prompt, &[EOS]), 0.0);
        assert_eq!(world.reward(&prompt, &[]), 0.0);
    }
}

#[test]
fn the_chosen_response_follows_bradley_terry() {
    let world = world();
    // By bins of the reward's margin: how often the better response was chosen, and how often it
    // should have been.
    let mut bins = vec![(0u32, 0u32, 0.0); 10];
    for index in 0..20_000 {
        let prompt = world.prompt(Split::Train, index);
        let pair = world.preference(&prompt, index % 3);
        assert_ne!(pair.chosen, pair.rejected);
        let margin = world.reward(&prompt, &pair.chosen) - world.reward(&prompt, &pair.rejected);
        if margin == 0.0 {
            continue;
        }
        let bin = &mut bins[((margin.abs() * 10.0) as usize).min(9)];
        bin.0 += 1;
        bin.1 += u32::from(margin > 0.0);
        bin.2 += 1.0 / (1.0 + (-margin.abs() / PREFERENCE_TEMPERATURE).exp());
    }
    for (count, better, expected) in bins {
        assert!(count > 200);
        let count = f64::from(count);
        let (frequency, expected) = (f64::from(better) / count, expected / count);
        let error = (expected * (1.0 - expected) / count).sqrt();
        assert!((frequency - expected).abs() < 4.0 * error, "{frequency} against {expected}");
    }
}

#[test]
fn text_and_tokens_are_the_same() {
    let world = world();
    for index in 0..2_000 {
        let prompt = world.prompt(Split::Train, index);
        assert_eq!(ids(&world, &prompt.text), prompt.tokens);
        assert_eq!(world.tokenizer().decode(&prompt.tokens, false).unwrap(), prompt.text);
        let response = world.demonstration(&prompt, Quality::Mixed, 0);
        let text = world.tokenizer().decode(&response, true).unwrap();
        assert_eq!(ids(&world, &text), response[..response.len() - 1]);
    }
}

#[test]
fn every_token_is_used() {
    // A word that nothing ever says would be a row of the embedding that nothing ever trains.
    let world = world();
    let mut used: HashSet<u32> = HashSet::from([PAD]);
    for index in 0..5_000 {
        let prompt = world.prompt(Split::Train, index);
        used.extend(world.demonstration(&prompt, Quality::Clean, 0));
        used.extend(prompt.tokens);
    }
    let unused: Vec<u32> = (0..world.vocab_size() as u32).filter(|token| !used.contains(token)).collect();
    assert!(unused.is_empty(), "{}", world.tokenizer().decode(&unused, false).unwrap());
}

proptest! {
    #[test]
    fn rewards_are_bounded(
        index in any::<u64>(),
        response in prop::collection::vec(0u32..230, 0..20),
        ends in any::<bool>(),
    ) {
        let world = world();
        let prompt = world.prompt(Split::Test, index);
        let mut response = response;
        if ends {
            response.push(EOS);
        }
        let reward = world.reward(&prompt, &response);
        prop_assert!((0.0..=1.0).contains(&reward), "{reward}");
    }

    /// Words of the prompt come nearer to a reward than words of the whole lexicon.
    #[test]
    fn rewards_of_words_of_the_prompt_are_bounded(
        index in any::<u64>(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..13),
        draw in any::<u64>(),
    ) {
        let world = world();
        let prompt = world.prompt(Split::Train, index);
        let mut pool = prompt.tokens.clone();
        pool.extend(world.demonstration(&prompt, Quality::Mixed, draw));
        let response: Vec<u32> = places.iter().map(|place| *place.get(&pool)).collect();
        let reward = world.reward(&prompt, &response);
        prop_assert!((0.0..=1.0).contains(&reward), "{reward}");
    }
}
