// What the Node.js client `etcd3` makes of a cluster, whose endpoints (host:port) are the arguments.
//
// Prints the name of each part that did as it should, and fails at the first that did not.

'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { Etcd3, EtcdLeaseInvalidError, EtcdLockFailedError } = require('etcd3');

const endpoints = process.argv.slice(2).map((endpoint) => `http://${endpoint}`);

async function puts_and_gets(one, other) {
  assert.equal(await one.get('a'), null);
  await one.put('a').value('1');
  const [kv] = (await other.get('a').exec()).kvs;
  assert.deepEqual([kv.key.toString(), kv.value.toString(), kv.version], ['a', '1', '1']);
  const put = await other.put('a').value('2').getPrevious();
  assert.equal(put.value.toString(), '1');
  assert.equal(await one.get('a').number(), 2);
  assert.equal((await other.delete().key('a')).deleted, '1');
  assert.equal(await one.get('a').exists(), false);
  const binary = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await one.put(binary).value(binary);
  assert.deepEqual(await other.get(binary).buffer(), binary);
}

async function prefix_ranges(one, other) {
  for (let n = 0; n < 5; n += 1) await one.put(`p/${n}`).value(n);
  await one.put('p0').value('behind the prefix');
  const all = await other.getAll().prefix('p/').strings();
  assert.deepEqual(all, { 'p/0': '0', 'p/1': '1', 'p/2': '2', 'p/3': '3', 'p/4': '4' });
  const last = await other.getAll().prefix('p/').sort('Value', 'Descend').limit(2).keys();
  assert.deepEqual(last, ['p/4', 'p/3']);
  assert.equal(await one.getAll().inRange({ start: 'p/1', end: 'p/3' }).count(), 2);
  assert.equal((await one.delete().prefix('p/')).deleted, '5');
  assert.deepEqual(await other.getAll().prefix('p').keys(), ['p0']);
}

async function transactions(one, other) {
  await one.put('t/a').value('1');
  const attempt = () =>
    one
      .if('t/a', 'Value', '==', '1')
      .and('t/b', 'Create', '==', 0)
      .then(one.put('t/b').value('made'), one.get('t/a'), one.delete().key('t/a'))
      .else(one.get('t/b'))
      .commit();
  const first = await attempt();
  assert.equal(first.succeeded, true);
  assert.equal(first.responses[1].response_range.kvs[0].value.toString(), '1');
  assert.deepEqual(await other.getAll().prefix('t/').strings(), { 't/b': 'made' });
  const second = await attempt();
  assert.equal(second.succeeded, false);
  assert.equal(second.responses[0].response_range.kvs[0].value.toString(), 'made');
  // Transfers that read and write what others do, tried again until none came between.
  await one.put('t/sum').value(0);
  const add = (client) =>
    client.stm({ retries: 100 }).transact(async (tx) => {
      await tx.put('t/sum').value((await tx.get('t/sum').number()) + 1);
    });
  await Promise.all([one, other, one, other, one, other].map(add));
  assert.equal(await one.get('t/sum').number(), 6);
}

async function watches(one, other) {
  const seen = [];
  const watcher = await other.watch().prefix('w/').withPreviousKV().create();
  const deleted = once(watcher, 'delete');
  watcher.on('put', (kv) => seen.push([kv.key.toString(), kv.value.toString()]));
  await one.put('w/a').value('1');
  await one.put('elsewhere').value('unseen');
  await one.put('w/b').value('2');
  await one.delete().key('w/a');
  const [now, before] = await deleted;
  assert.deepEqual([now.key.toString(), before.value.toString()], ['w/a', '1']);
  assert.deepEqual(seen, [['w/a', '1'], ['w/b', '2']]);
  await watcher.cancel();
  const revision = (await one.get('w/b').exec()).kvs[0].mod_revision;
  const late = one.watch().key('w/b').startRevision(revision).watcher();
  const [kv] = await once(late, 'put');
  assert.deepEqual([kv.value.toString(), kv.mod_revision], ['2', revision]);
  await late.cancel();
}

async function leases(one, other) {
  const lease = one.lease(2);
  const watcher = await other.watch().key('l/kept').create();
  const deleted = once(watcher, 'delete');
  await lease.put('l/kept').value('1');
  // Four seconds are twice as long as it lives; the client keeps it alive three times in each of its lives.
  const until = Date.now() + 4000;
  while (Date.now() < until) await once(lease, 'keepaliveSucceeded');
  assert.equal(await other.get('l/kept').string(), '1');
  lease.release();
  await deleted;
  await watcher.cancel();
  const revoked = one.lease(1000);
  await revoked.put('l/revoked').value('1');
  await revoked.revoke();
  assert.equal(await other.get('l/revoked'), null);
  await assert.rejects(other.put('l/revoked').value('2').lease(await unknownLease(other)), EtcdLeaseInvalidError);
}

async function unknownLease(client) {
  const lease = client.lease(1000);
  const id = await lease.grant();
  await lease.revoke();
  return id;
}

async function locks(one, other) {
  const mine = await one.lock('fence').ttl(60).acquire();
  await assert.rejects(other.lock('fence').ttl(60).acquire(), EtcdLockFailedError);
  await mine.release();
  const yours = await other.lock('fence').ttl(60).acquire();
  await assert.rejects(one.lock('fence').ttl(60).acquire(), EtcdLockFailedError);
  await yours.release();
  let held = false;
  await one.lock('work').do(async () => {
    await assert.rejects(other.lock('work').acquire(), EtcdLockFailedError);
    held = true;
  });
  assert.equal(held, true);
}

async function elections(one, other) {
  const first = one.election('chief', 2).campaign('one');
  await once(first, 'elected');
  const second = other.election('chief', 2).campaign('other');
  const elected = once(second, 'elected');
  assert.equal(await other.election('chief').leader(), 'one');
  await first.resign();
  await elected;
  assert.equal(await one.election('chief').leader(), 'other');
  await second.resign();
}

async function cluster(one) {
  const { members } = await one.cluster.memberList({});
  assert.deepEqual(members.map((member) => member.ID).sort(), ['1', '2', '3']);
  assert.match((await one.maintenance.status()).version, /^3\.6\./);
}

async function main() {
  const one = new Etcd3({ hosts: endpoints });
  const other = new Etcd3({ hosts: endpoints[1] });
  for (const part of [puts_and_gets, prefix_ranges, transactions, watches, leases, locks, elections, cluster]) {
    await part(one, other);
    console.log(part.name);
  }
  one.close();
  other.close();
}

// Not left to end by itself: what the client keeps for elections goes on after they are over, with any server.
main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
