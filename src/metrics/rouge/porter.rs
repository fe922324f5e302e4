//! Porter's stemmer as NLTK has it by default, which `rouge-score` uses.
//!
//! M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, 130–137, with the departures that NLTK's
//! documentation lists: Martin Porter's own (-bli for -abli, -logi), those of its extensions (-ied, -ies and -y with short
//! stems, -alli, -fulli, -logi with a short stem, a short vowel-consonant word ends in cvc), and a list of irregular words.

/// The stem of a word of lower-case ASCII letters and digits, as NLTK's `PorterStemmer().stem(word)`. Any other byte counts
/// as a consonant.
///
/// ```
/// # use qstar::metrics::porter_stem;
/// assert_eq!(["relational", "dying", "happily"].map(porter_stem), ["relat", "die", "happili"]);
/// ```
pub fn porter_stem(word: &str) -> String {
    let mut bytes = word.as_bytes().to_vec();
    stem(&mut bytes);
    String::from_utf8(bytes).expect("whole ASCII letters are replaced")
}

/// What a word must satisfy without the ending for the ending to be replaced.
type Condition = fn(&[u8]) -> bool;

/// Endings and what replaces them. The first ending that a word has is the one that counts, replaced or not.
type Rules = [(&'static str, &'static str)];

const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("inning", "inning"),
    ("innings", "inning"),
    ("outing", "outing"),
    ("outings", "outing"),
    ("canning", "canning"),
    ("cannings", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

const STEP_1A: &Rules = &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];

const STEP_2: &Rules = &[
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: &Rules =
    &[("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];

/// Besides "ion".
const STEP_4: [&str; 18] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ou", "ism", "ate", "iti", "ous",
    "ive", "ize",
];

/// Replaces the word by its stem.
pub(super) fn stem(word: &mut Vec<u8>) {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| irregular.as_bytes() == word.as_slice()) {
        *word = stem.as_bytes().to_vec();
        return;
    }
    if word.len() <= 2 {
        return;
    }
    plural(word);
    past_and_gerund(word);
    if word.len() > 2 && word.ends_with(b"y") && is_consonant(word, word.len() - 2) {
        replace(word, 1, "i");
    }
    step_2(word);
    apply(word, STEP_3, |stem| measure(stem) > 0);
    step_4(word);
    final_e(word);
    if word.ends_with(b"ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
}

fn plural(word: &mut Vec<u8>) {
    if word.len() == 4 && word.ends_with(b"ies") {
        word.pop();
    } else {
        apply(word, STEP_1A, |_| true);
    }
}

fn past_and_gerund(word: &mut Vec<u8>) {
    if word.ends_with(b"ied") {
        let kept = if word.len() == 4 { 1 } else { 2 };
        word.truncate(word.len() - kept);
        return;
    }
    if word.ends_with(b"eed") {
        if measure(&word[..word.len() - 3]) > 0 {
            word.pop();
        }
        return;
    }
    let ending = match word.as_slice() {
        [.., b'e', b'd'] => 2,
        [.., b'i', b'n', b'g'] => 3,
        _ => return,
    };
    if !has_vowel(&word[..word.len() - ending]) {
        return;
    }
    word.truncate(word.len() - ending);
    if ["at", "bl", "iz"].iter().any(|ending| word.ends_with(ending.as_bytes())) {
        word.push(b'e');
    } else if ends_in_double_consonant(word) {
        if !matches!(word.last(), Some(b'l' | b's' | b'z')) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_in_cvc(word) {
        word.push(b'e');
    }
}

fn step_2(word: &mut Vec<u8>) {
    // NLTK: -alli becomes -al before all else, and the result goes through the step again.
    if word.ends_with(b"alli") && measure(&word[..word.len() - 4]) > 0 {
        word.truncate(word.len() - 2);
        return step_2(word);
    }
    if apply(word, STEP_2, |stem| measure(stem) > 0) {
        return;
    }
    // The l belongs to the stem, so that it is enough in "geologi".
    if word.ends_with(b"logi") && measure(&word[..word.len() - 3]) > 0 {
        word.pop();
    }
}

fn step_4(word: &mut Vec<u8>) {
    if word.ends_with(b"ion") {
        cut(word, 3, |stem| measure(stem) > 1 && matches!(stem.last(), Some(b's' | b't')));
    } else if let Some(ending) = STEP_4.iter().find(|ending| word.ends_with(ending.as_bytes())) {
        cut(word, ending.len(), |stem| measure(stem) > 1);
    }
}

fn final_e(word: &mut Vec<u8>) {
    if word.ends_with(b"e") {
        cut(word, 1, |stem| match measure(stem) {
            0 => false,
            1 => !ends_in_cvc(stem),
            _ => true,
        });
    }
}

/// Whether the word has one of the endings, replaced or not.
fn apply(word: &mut Vec<u8>, rules: &Rules, condition: Condition) -> bool {
    let Some((ending, new)) = rules.iter().find(|(ending, _)| word.ends_with(ending.as_bytes())) else { return false };
    if condition(&word[..word.len() - ending.len()]) {
        replace(word, ending.len(), new);
    }
    true
}

fn replace(word: &mut Vec<u8>, ending: usize, new: &str) {
    word.truncate(word.len() - ending);
    word.extend_from_slice(new.as_bytes());
}

fn cut(word: &mut Vec<u8>, ending: usize, condition: Condition) {
    let stem = word.len() - ending;
    if condition(&word[..stem]) {
        word.truncate(stem);
    }
}

fn is_consonant(word: &[u8], at: usize) -> bool {
    match word[at] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        b'y' => {
            // A run of y alternates; the first is a consonant at the start of the word and after a vowel.
            let run = word[..at].iter().rev().take_while(|&&byte| byte == b'y').count();
            let first = at == run || !is_consonant(word, at - run - 1);
            first == run.is_multiple_of(2)
        }
        _ => true,
    }
}

fn has_vowel(stem: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u');
    // Before the first of these all are consonants, and a y after one is a vowel.
    stem.iter().any(is_plain) || stem.iter().skip(1).any(|&byte| byte == b'y')
}

/// The m of `[C](VC)^m[V]`: how often a vowel is followed by a consonant.
fn measure(stem: &[u8]) -> usize {
    let (mut m, mut after_vowel, mut after_consonant) = (0, false, false);
    for &byte in stem {
        let vowel = match byte {
            b'a' | b'e' | b'i' | b'o' | b'u' => true,
            b'y' => after_consonant,
            _ => false,
        };
        m += usize::from(after_vowel && !vowel);
        (after_vowel, after_consonant) = (vowel, !vowel);
    }
    m
}

fn ends_in_double_consonant(word: &[u8]) -> bool {
    let n = word.len();
    n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1)
}

/// Consonant, vowel, consonant that is not w, x or y; or a word of two letters, vowel and consonant.
fn ends_in_cvc(word: &[u8]) -> bool {
    let n = word.len();
    match n {
        0 | 1 => false,
        2 => !is_consonant(word, 0) && is_consonant(word, 1),
        _ => {
            is_consonant(word, n - 3)
                && !is_consonant(word, n - 2)
                && is_consonant(word, n - 1)
                && !matches!(word[n - 1], b'w' | b'x' | b'y')
        }
    }
}
