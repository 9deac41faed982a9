//! A network of the cluster's own, whose links can be cut one by one and in one direction.

use std::env;
use std::fs::{self, File, OpenOptions, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::node::MAX_NODES;

/// What a fault needs is not to be had here: that case is skipped, with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub(super) String);

/// So many networks may there be on one machine at one time: the third byte of their addresses.
const MOST_NETWORKS: u8 = 250;

/// The two first bytes of all addresses: private ones (RFC 1918) from the middle, which few use.
const BYTES: [u8; 2] = [10, 213];

/// The rule that holds what a node gets from a node that it is cut off from; before the one for the node's own addresses.
const CUT: u32 = 10;

/// A network namespace for each node, on one bridge. Linux with root, and the program `ip`.
///
/// A link is cut where it arrives and in silence: what was sent is lost, and nobody is told, as in a network that loses
/// packets. Other clusters and the rest of the machine do not see it. Dropping it removes everything.
#[derive(Debug)]
pub struct Network {
    number: u8,
    nodes: usize,
    /// The kernel unlocks it when this process dies, and whoever takes the number next removes what is left.
    _lock: File,
}

impl Network {
    /// Opens a network for so many nodes.
    ///
    /// # Errors
    /// [`Unavailable`] says what is missing.
    pub fn open(nodes: usize) -> Result<Self, Unavailable> {
        let dir = env::temp_dir().join("storage-testkit-networks");
        let failed = |error: std::io::Error| Unavailable(format!("{}: {error}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed)?;
        // Another user's tests may share the folder. If it is theirs, they have done this already.
        let _ = fs::set_permissions(&dir, Permissions::from_mode(0o777));
        let free = (0..MOST_NETWORKS).find_map(|number| {
            let file = OpenOptions::new().create(true).append(true).open(dir.join(number.to_string())).ok()?;
            file.try_lock().ok()?;
            Some((number, file))
        });
        let (number, lock) = free.ok_or_else(|| Unavailable("all networks are in use".to_owned()))?;
        let network = Self { number, nodes, _lock: lock };
        // Of a process that was killed.
        network.remove();
        network.build()?;
        Ok(network)
    }

    /// The address of a node.
    #[must_use]
    pub fn host(&self, node: usize) -> Ipv4Addr {
        let last = u8::try_from(node + 1).unwrap_or(u8::MAX - 1);
        let [first, second] = BYTES;
        Ipv4Addr::new(first, second, self.number, last)
    }

    /// The start of the command that runs a program in the place of a node.
    pub(super) fn enter(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(node)].map(str::to_owned).to_vec()
    }

    /// From now on nothing that `from` sends to `to` arrives.
    ///
    /// # Errors
    /// [`Unavailable`] with what the system says.
    pub fn cut(&self, from: usize, to: usize) -> Result<(), Unavailable> {
        let (namespace, source) = (self.namespace(to), self.host(from).to_string());
        ip(&["-n", &namespace, "rule", "add", "pref", &CUT.to_string(), "from", &source, "blackhole"])
    }

    /// Mends every link.
    ///
    /// # Errors
    /// [`Unavailable`] with what the system says.
    pub fn heal(&self) -> Result<(), Unavailable> {
        for node in 0..self.nodes {
            while self.cuts_at(node)? > 0 {
                ip(&["-n", &self.namespace(node), "rule", "del", "pref", &CUT.to_string()])?;
            }
        }
        Ok(())
    }

    /// Whether something that one node sends to another arrives: a connection to the port is made, or refused at once.
    #[must_use]
    pub fn reaches(&self, from: usize, to: usize, port: u16) -> bool {
        const PATIENCE: &str = "0.3";
        let attempt = format!("exec 3<>/dev/tcp/{}/{port}", self.host(to));
        let mut arguments = self.enter(from);
        arguments.extend(["timeout", PATIENCE, "bash", "-c", &attempt].map(str::to_owned));
        let Some((program, arguments)) = arguments.split_first() else { return false };
        // `timeout` ends with 124 when the time is over; anything else is an answer of the other end.
        Command::new(program).args(arguments).output().is_ok_and(|ended| ended.status.code() != Some(124))
    }

    fn cuts_at(&self, node: usize) -> Result<usize, Unavailable> {
        let mut list = Command::new("ip");
        list.args(["-n", &self.namespace(node), "rule", "list", "pref", &CUT.to_string()]);
        let rules = list.output().map_err(|error| Unavailable(format!("ip: {error}")))?;
        Ok(String::from_utf8_lossy(&rules.stdout).lines().count())
    }

    fn build(&self) -> Result<(), Unavailable> {
        let bridge = self.bridge();
        let [first, second] = BYTES;
        let gateway = format!("{}/24", Ipv4Addr::new(first, second, self.number, 254));
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &gateway, "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for node in 0..self.nodes {
            let (namespace, outside) = (self.namespace(node), format!("{bridge}-{node}"));
            let address = format!("{}/24", self.host(node));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &outside, "master", &bridge, "up"])?;
            ip(&["-n", &namespace, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            // The rule for the node's own addresses comes first of all; a cut has to come before it.
            ip(&["-n", &namespace, "rule", "add", "pref", "100", "lookup", "local"])?;
            ip(&["-n", &namespace, "rule", "del", "pref", "0"])?;
        }
        Ok(())
    }

    /// What is not there is no error here.
    fn remove(&self) {
        for node in 0..MAX_NODES {
            let _ = ip(&["netns", "del", &self.namespace(node)]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }

    fn bridge(&self) -> String {
        format!("stk{}", self.number)
    }

    fn namespace(&self, node: usize) -> String {
        format!("stk{}-n{node}", self.number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

fn ip(arguments: &[&str]) -> Result<(), Unavailable> {
    let ended = Command::new("ip").args(arguments).output().map_err(|error| Unavailable(format!("ip: {error}")))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(Unavailable(format!("network namespaces need root: `ip {}` said: {}", arguments.join(" "), said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_cut_in_one_direction_and_mended() {
        let network = match Network::open(3) {
            Ok(network) => network,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        };
        // Nobody listens there: a refusal is an answer too, and a SYN that is lost is none.
        assert!(network.reaches(0, 1, 9) && network.reaches(1, 0, 9) && network.reaches(2, 1, 9));
        network.cut(0, 1).unwrap();
        assert!(!network.reaches(0, 1, 9), "what n0 sends is lost");
        assert!(network.reaches(2, 1, 9), "others arrive");
        network.cut(1, 0).unwrap();
        network.heal().unwrap();
        assert!(network.reaches(0, 1, 9) && network.reaches(1, 0, 9));
    }
}
