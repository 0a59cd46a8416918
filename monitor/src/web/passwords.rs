//! Who may ask: names and passwords against bcrypt hashes, one at a time and each only once.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::HeaderValue;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bcrypt::HashParts;
use ring::{hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Refused credentials that are remembered, so that a client that asks with the same ones costs nothing.
const REMEMBERED: usize = 128;
/// Highest cost of a hash; each step doubles the time, and this takes some seconds.
const MAX_COST: u32 = 18;

/// One hash is computed at a time, whoever asks: it is made to be slow.
static TURN: Semaphore = Semaphore::const_new(1);

/// Everybody's hash, and what is known already.
pub(super) struct Passwords {
    hashes: HashMap<String, String>,
    /// Computed for unknown names too, so that the time tells nobody which names there are.
    decoy: String,
    /// Credentials are remembered only as digests under a key that lives as long as this.
    key: hmac::Key,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The digest of each user's right credentials: at most one a user, so nobody can push it out.
    right: HashMap<String, hmac::Tag>,
    /// Digests of the last wrong ones.
    wrong: VecDeque<Vec<u8>>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new(BTreeMap::new()).expect("nobody's hash is invalid")
    }
}

impl Passwords {
    /// Of these users, each with a bcrypt hash.
    pub(super) fn new(users: BTreeMap<String, String>) -> Result<Self, String> {
        let mut costliest = (0, String::new());
        for (name, hash) in &users {
            let cost = cost(name, hash)?;
            if cost > costliest.0 {
                costliest = (cost, hash.clone());
            }
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system has no random numbers; see `dmesg`".to_owned())?;
        Ok(Self { hashes: users.into_iter().collect(), decoy: costliest.1, key, known: Mutex::default() })
    }

    /// Whether nobody has to tell who he is.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether what the header `Authorization` holds opens the door.
    pub(super) async fn admit(self: Arc<Self>, header: Option<&HeaderValue>) -> bool {
        let Some((name, password)) = header.and_then(credentials) else { return false };
        let digested = digested(&name, &password);
        if let Some(answer) = self.remembered(&name, &digested) {
            return answer;
        }
        let turn = TURN.acquire().await.expect("the semaphore is never closed");
        // It may have become known while others had their turn.
        if let Some(answer) = self.remembered(&name, &digested) {
            return answer;
        }
        // The turn ends with the computation, not with a client that hangs up meanwhile.
        let computed = spawn_blocking(move || {
            let _turn = turn;
            self.compute(name, &password, &digested)
        });
        computed.await.unwrap_or(false)
    }

    fn compute(&self, name: String, password: &[u8], digested: &[u8]) -> bool {
        let hash = self.hashes.get(&name);
        let matches = bcrypt::verify(password, hash.unwrap_or(&self.decoy)).unwrap_or(false);
        let tag = hmac::sign(&self.key, digested);
        let right = matches && hash.is_some();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if right {
            known.right.insert(name, tag);
        } else {
            known.wrong.truncate(REMEMBERED - 1);
            known.wrong.push_front(tag.as_ref().to_vec());
        }
        right
    }

    fn remembered(&self, name: &str, digested: &[u8]) -> Option<bool> {
        let tag = hmac::sign(&self.key, digested);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(right) = known.right.get(name)
            && hmac::verify(&self.key, digested, right.as_ref()).is_ok()
        {
            return Some(true);
        }
        known.wrong.iter().any(|wrong| wrong == tag.as_ref()).then_some(false)
    }
}

fn cost(name: &str, hash: &str) -> Result<u32, String> {
    let shown = name.escape_debug();
    if name.contains(':') {
        return Err(format!(
            "the user {shown} has a colon in the name, which no client can send; leave it out"
        ));
    }
    let parts = HashParts::from_str(hash).map_err(|error| {
        format!("the password of the user {shown} is not a bcrypt hash ({error}); `htpasswd -nBC 10 \"\"` makes one")
    })?;
    match parts.get_cost() {
        cost if cost > MAX_COST => Err(format!(
            "the hash of the user {shown} has the cost {cost}, more than {MAX_COST}; `htpasswd -nBC 10 \"\"` makes one \
             that does not take minutes"
        )),
        cost => Ok(cost),
    }
}

/// Name and password of `Basic <base64>`.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((name, decoded[colon + 1..].to_vec()))
}

/// What a digest is made of. A name holds no colon.
fn digested(name: &str, password: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b":", password].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords(users: &[(&str, &str)]) -> Arc<Passwords> {
        let hash = |password| bcrypt::hash(password, 4).expect("a hash");
        let users = users.iter().map(|(name, password)| ((*name).to_owned(), hash(*password)));
        Arc::new(Passwords::new(users.collect()).expect("users"))
    }

    fn header(credentials: &str) -> HeaderValue {
        format!("Basic {}", BASE64_STANDARD.encode(credentials)).parse().expect("a header")
    }

    async fn admitted(passwords: &Arc<Passwords>, credentials: &str) -> bool {
        passwords.clone().admit(Some(&header(credentials))).await
    }

    #[tokio::test]
    async fn names_and_passwords_must_go_together() {
        let passwords = passwords(&[("alice", "spring:time"), ("bob", "winter")]);
        // Each twice: computed, then remembered.
        for _ in 0..2 {
            for (credentials, right) in [
                ("alice:spring:time", true),
                ("bob:winter", true),
                ("alice:winter", false),
                ("alice:", false),
                (":", false),
                ("carol:spring:time", false),
                ("carol:winter", false),
                ("ALICE:spring:time", false),
            ] {
                assert_eq!(admitted(&passwords, credentials).await, right, "{credentials}");
            }
        }
        let known = passwords.known.lock().expect("no panic");
        assert_eq!((known.right.len(), known.wrong.len()), (2, 6));
    }

    /// On one thread: were a hash computed on it, whoever asks next would wait, and these tasks would be at their end.
    #[tokio::test]
    async fn hashes_are_computed_elsewhere_and_one_at_a_time() {
        let hash = |cost| bcrypt::hash("spring", cost).expect("a hash");
        let users = BTreeMap::from([("alice".to_owned(), hash(4)), ("bob".to_owned(), hash(10))]);
        let passwords = Arc::new(Passwords::new(users).expect("users"));
        assert!(admitted(&passwords, "alice:spring").await);
        let mut guesses = tokio::task::JoinSet::new();
        for n in 0..8 {
            let passwords = passwords.clone();
            guesses.spawn(async move { admitted(&passwords, &format!("bob:{n}")).await });
        }
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        assert_eq!(TURN.available_permits(), 0, "one has the turn");
        assert!(admitted(&passwords, "alice:spring").await);
        assert!(guesses.try_join_next().is_none_or(|guess| !guess.expect("no panic")));
        assert!(!guesses.is_empty(), "the others wait");
    }

    #[tokio::test]
    async fn other_headers_admit_nobody() {
        let passwords = passwords(&[("alice", "spring")]);
        assert!(!passwords.clone().admit(None).await);
        let encoded = BASE64_STANDARD.encode("alice:spring");
        for text in [format!("Bearer {encoded}"), encoded.clone(), "Basic".into(), "Basic !".into()] {
            let header = text.parse().expect("a header");
            assert!(!passwords.clone().admit(Some(&header)).await, "{text}");
        }
        let header = format!("basic {encoded}").parse().expect("a header");
        assert!(passwords.clone().admit(Some(&header)).await, "the scheme's case does not matter");
    }

    #[tokio::test]
    async fn the_wrong_never_push_out_the_right_and_are_bounded() {
        let passwords = passwords(&[("alice", "spring")]);
        assert!(admitted(&passwords, "alice:spring").await);
        for n in 0..REMEMBERED + 10 {
            assert!(!admitted(&passwords, &format!("alice:{n}")).await);
        }
        let counted = passwords.known.lock().map(|known| (known.right.len(), known.wrong.len()));
        assert_eq!(counted.expect("no panic"), (1, REMEMBERED));
        // Without the hash nothing but memory can admit.
        let mut forgetful = Arc::into_inner(passwords).expect("nobody else");
        forgetful.hashes.clear();
        assert!(admitted(&Arc::new(forgetful), "alice:spring").await);
    }

    #[test]
    fn hashes_are_checked() {
        let refused = |name: &str, hash: &str| {
            let users = BTreeMap::from([(name.to_owned(), hash.to_owned())]);
            Passwords::new(users).err().expect("a mistake")
        };
        assert!(refused("alice", "spring").contains("the user alice is not a bcrypt hash"));
        assert!(refused("a:b", "spring").contains("a colon"));
        let hash = bcrypt::hash("spring", 4).expect("a hash").replacen("$04$", "$19$", 1);
        assert!(refused("alice", &hash).contains("the cost 19, more than 18"));
        assert!(!refused("alice", "geheim").contains("geheim"), "the secret is not shown");
    }
}
