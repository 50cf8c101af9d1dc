//! Inputs made of others: bytes and words put in, taken out, doubled and changed, and JSON changed as the tree that it is.

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value};

/// What inputs are made with.
pub(crate) struct Mutator<'a> {
    /// Where chance comes from.
    pub(crate) random: &'a mut StdRng,
    /// Inputs have a JSON value in them.
    pub(crate) json: bool,
    /// What they like to have in them.
    pub(crate) words: &'a [&'a str],
    /// How long they may be, in bytes.
    pub(crate) longest: usize,
}

impl Mutator<'_> {
    /// Another input, made of one and some of a second one.
    pub(crate) fn mutated(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut input = input.to_vec();
        for _ in 0..=self.random.random_range(0..4u8) {
            if self.json && self.random.random_ratio(2, 3) {
                if let Some(changed) = self.in_tree(&input, other) {
                    input = changed;
                }
            } else {
                self.in_bytes(&mut input, other);
            }
        }
        input.truncate(self.longest);
        input
    }

    fn at(&mut self, input: &[u8]) -> usize {
        self.random.random_range(0..=input.len())
    }

    fn in_bytes(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let (a, b) = (self.at(input), self.at(input));
        let (from, to) = (a.min(b), a.max(b));
        let short = to.min(from + 16);
        match self.random.random_range(0..9u8) {
            0 if from < input.len() => input[from] ^= 1 << self.random.random_range(0..8u8),
            1 if from < input.len() => input[from] = self.random.random(),
            2 if from < input.len() => {
                input[from] = *[0, 1, 0x7f, 0x80, 0xff, b'0', b'\n', b'"'].choose(self.random).unwrap_or(&0);
            }
            3 => drop(input.drain(from..short)),
            4 => input.truncate(from),
            5 => {
                let copy = input[from..short].to_vec();
                let place = self.at(input);
                input.splice(place..place, copy);
            }
            6 => {
                let tail = other[self.at(other)..].to_vec();
                input.splice(from.., tail);
            }
            _ => {
                let word = self.words.choose(self.random).copied().unwrap_or_default().as_bytes().to_vec();
                let end = if self.random.random() { from } else { input.len().min(from + word.len()) };
                input.splice(from..end, word);
            }
        }
    }

    /// Changes one node of the value. It stands behind lines of text, if there are any.
    fn in_tree(&mut self, input: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        let start = input.iter().position(|byte| matches!(byte, b'{' | b'['))?;
        let mut tree: Value = serde_json::from_slice(&input[start..]).ok()?;
        let second = other.iter().position(|byte| matches!(byte, b'{' | b'['));
        let second = second.and_then(|at| serde_json::from_slice::<Value>(&other[at..]).ok());
        let mut nodes = count(&tree);
        let place = self.random.random_range(0..nodes);
        let spare = second.as_ref().map(|tree| {
            let mut place = self.random.random_range(0..count(tree));
            nth(tree, &mut place).cloned().unwrap_or_default()
        });
        nodes = place;
        self.change(nth_mut(&mut tree, &mut nodes)?, spare);
        Some([&input[..start], tree.to_string().as_bytes()].concat())
    }

    fn change(&mut self, node: &mut Value, spare: Option<Value>) {
        let word = self.words.choose(self.random).copied().unwrap_or_default().to_owned();
        match (self.random.random_range(0..8u8), &mut *node) {
            (0, Value::Object(map)) => {
                let keys: Vec<_> = map.keys().cloned().collect();
                drop(keys.choose(self.random).map(|key| map.remove(key)));
            }
            (1 | 2, Value::Object(map)) => drop(map.insert(word, spare.unwrap_or_default())),
            (3, Value::Object(map)) => {
                let keys: Vec<_> = map.keys().cloned().collect();
                if let Some(value) = keys.choose(self.random).and_then(|key| map.remove(key)) {
                    map.insert(word, value);
                }
            }
            (0, Value::Array(list)) if !list.is_empty() => {
                drop(list.remove(self.random.random_range(0..list.len())));
            }
            (1, Value::Array(list)) => list.extend(spare),
            (2, Value::Array(list)) if !list.is_empty() && list.len() < 64 => {
                let again = list[self.random.random_range(0..list.len())].clone();
                list.push(again);
            }
            (0..4, Value::String(text)) => {
                let mut bytes = text.clone().into_bytes();
                self.in_bytes(&mut bytes, word.as_bytes());
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            (4, node) => *node = spare.unwrap_or_default(),
            (5, node) => *node = self.leaf(word),
            (_, node) => *node = word.into(),
        }
    }

    fn leaf(&mut self, word: String) -> Value {
        match self.random.random_range(0..12u8) {
            0 => Value::Null,
            1 => true.into(),
            2 => false.into(),
            3 => 0.into(),
            4 => (-1).into(),
            5 => u64::MAX.into(),
            6 => i64::MIN.into(),
            7 => self.random.random_range(0..70_000u32).into(),
            8 => 1.5.into(),
            9 => Value::Array(vec![word.into()]),
            10 => Value::Object(Map::from_iter([(word, Value::Null)])),
            _ => "".into(),
        }
    }
}

fn count(tree: &Value) -> usize {
    1 + children(tree).map(count).sum::<usize>()
}

fn children(tree: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match tree {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Box::new(std::iter::empty()),
    }
}

fn nth<'a>(tree: &'a Value, place: &mut usize) -> Option<&'a Value> {
    if *place == 0 {
        return Some(tree);
    }
    *place -= 1;
    children(tree).find_map(|child| nth(child, place))
}

fn nth_mut<'a>(tree: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    if *place == 0 {
        return Some(tree);
    }
    *place -= 1;
    match tree {
        Value::Array(list) => list.iter_mut().find_map(|child| nth_mut(child, place)),
        Value::Object(map) => map.values_mut().find_map(|child| nth_mut(child, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
