//! Patterns of KEYS, SCAN and CONFIG GET, as Redis matches them: `*`, `?`, `[abc]`, `[^a-c]`, `\x`.

/// Longest pattern, bytes: the time for a match grows with its length.
pub const MAX_PATTERN: usize = 1024;

/// Does all of `text` match all of `pattern`?
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last star: where the pattern goes on, and where the text does if the star takes one
    // byte more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        match (text.get(t), p < pattern.len()) {
            (None, more) => return !more,
            (Some(byte), true) => {
                if let Some(next) = one(pattern, p, *byte) {
                    (p, t) = (next, t + 1);
                    continue;
                }
            }
            (Some(_), false) => {}
        }
        let Some((behind, taken)) = star else {
            return false;
        };
        (p, t) = (behind, taken + 1);
        star = Some((p, t));
    }
}

/// Matches one byte with the pattern at `p`. Returns where the pattern goes on.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match (pattern[p], pattern.get(p + 1)) {
        (b'?', _) => Some(p + 1),
        (b'[', _) => class(pattern, p + 1, byte),
        (b'\\', Some(escaped)) => (*escaped == byte).then_some(p + 2),
        (literal, _) => (literal == byte).then_some(p + 1),
    }
}

/// The same for a class that begins at `p`, after its bracket. A class without an end ends with the
/// pattern.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    loop {
        match &pattern[p.min(pattern.len())..] {
            [] => break,
            [b']', ..] => {
                p += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                p += 2;
            }
            [from, b'-', to, ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                p += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}
