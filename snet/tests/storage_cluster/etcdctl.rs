//! `etcdctl` on three command lines.

use super::{common::etcdctl::Etcdctl, endpoint, init, says, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_etcdctl_finds_on_three_command_lines_what_etcd_has() {
    let cluster = start(init("embedded"), 3).await;
    for index in 0..3 {
        says(&cluster, index, "ready: the cluster serves");
    }
    let endpoints = (0..3).map(|index| endpoint(&cluster, index)).collect();
    Etcdctl { endpoints, tls: Vec::new() }.walk(cluster.dir().unwrap());
}
