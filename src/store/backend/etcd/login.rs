use std::fmt;
use std::sync::RwLock;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request};

use super::kv::{Fault, Member, fault};
use super::rpc::AuthenticateRequest;
use super::rpc::auth_client::AuthClient;

/// How long etcd may take to check a password: it makes that slow on purpose.
const AUTHENTICATE: Duration = Duration::from_secs(5);

/// A user of etcd. The token that its name and password give is used until etcd doesn't know it any more.
pub(super) struct Login {
    username: String,
    password: String,
    token: RwLock<Option<Token>>,
    /// Of many who find that they have no token one asks for it.
    asking: tokio::sync::Mutex<()>,
}

/// What a user shows with each call.
#[derive(Clone, PartialEq)]
pub(super) enum Token {
    Given(MetadataValue<Ascii>),
    /// This etcd wants none.
    Needless,
}

impl Token {
    /// Adds it to a request.
    pub(super) fn sign<T>(&self, request: &mut Request<T>) {
        if let Token::Given(token) = self {
            request.metadata_mut().insert("token", token.clone());
        }
    }
}

impl Login {
    pub(super) fn new(username: String, password: String) -> Self {
        Self { username, password, token: RwLock::default(), asking: tokio::sync::Mutex::default() }
    }

    /// A token is not valid any more. Another one, which somebody may have got meanwhile, is kept.
    pub(super) fn forget(&self, token: &Token) {
        self.token.write().expect(UNPOISONED).take_if(|known| known == token);
    }

    /// The token; asked for if there is none.
    pub(super) async fn token(&self, member: &Member) -> Result<Token, Fault> {
        let known = || self.token.read().expect(UNPOISONED).clone();
        if let Some(token) = known() {
            return Ok(token);
        }
        let _asking = self.asking.lock().await;
        if let Some(token) = known() {
            return Ok(token);
        }
        let token = self.ask(member).await?;
        *self.token.write().expect(UNPOISONED) = Some(token.clone());
        Ok(token)
    }

    async fn ask(&self, member: &Member) -> Result<Token, Fault> {
        let request = AuthenticateRequest { name: self.username.clone(), password: self.password.clone() };
        let mut client = AuthClient::new(member.channel.clone());
        let not_done = |why: String| Fault::NotDone(format!("{} gave no token: {why}", member.address));
        match tokio::time::timeout(AUTHENTICATE, client.authenticate(request)).await {
            Ok(Ok(response)) => {
                let token = response.into_inner().token.parse().map_err(|_| not_done("the token is no ASCII text".to_owned()))?;
                Ok(Token::Given(token))
            }
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                tracing::warn!(etcd = %member.address, "this etcd has authentication switched off; the user and password are not used");
                Ok(Token::Needless)
            }
            Ok(Err(status)) if status.code() == Code::InvalidArgument => {
                Err(Fault::Refused(format!("{} doesn't let user {:?} in: {}", member.address, self.username, status.message())))
            }
            Ok(Err(status)) => match fault(&status, &member.address) {
                handshake @ Fault::Handshake(_) => Err(handshake),
                _ => Err(not_done(status.message().to_owned())),
            },
            Err(_) => Err(not_done(format!("no answer within {} s", AUTHENTICATE.as_secs()))),
        }
    }
}

const UNPOISONED: &str = "nothing panics while holding it";

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login of {:?}", self.username)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_somebody_got_meanwhile_is_not_thrown_away_with_the_old_one() {
        let login = Login::new("root".into(), "secret".into());
        let [old, new] = ["old", "new"].map(|token| Token::Given(MetadataValue::from_static(token)));
        let kept = || login.token.read().unwrap().clone();
        *login.token.write().unwrap() = Some(new.clone());
        login.forget(&old);
        assert!(kept() == Some(new.clone()));
        login.forget(&new);
        assert!(kept().is_none());
    }
}
