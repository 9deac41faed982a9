// What etcd's own client makes of a cluster, whose endpoints (host:port) are the arguments.
//
// Prints the name of each part that did as it should, with what it was told, and ends at the first that did not.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/client/v3/ordering"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// How long a part may take, on a busy machine too.
const within = 50 * time.Second

var addresses []string

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		panic(fmt.Sprintf("found %v, expected %v", found, expected))
	}
}

// connect gives a client of one of the endpoints, so that it is known who answers.
func connect(place int, options ...grpc.DialOption) *clientv3.Client {
	return must(clientv3.New(clientv3.Config{
		Endpoints:   []string{addresses[place%len(addresses)]},
		DialTimeout: within,
		DialOptions: options,
	}))
}

type part struct {
	name string
	run  func(ctx context.Context, one, other *clientv3.Client)
}

func main() {
	addresses = os.Args[1:]
	parts := []part{
		{"reads and writes", readsAndWrites},
		{"own writes", ownWrites},
		{"transactions", transactions},
		{"watches", watches},
		{"progress", progress},
		{"fragments", fragments},
		{"leases", leases},
		{"mutex", mutex},
		{"election", election},
		{"stm", stm},
		{"leasing", leasingKV},
		{"namespace", namespaced},
		{"mirror", mirrored},
		{"ordering", ordered},
		{"compressed", compressed},
		{"resolver", resolved},
		{"maintenance", maintenance},
		{"health", health},
		{"auth", auth},
	}
	for _, part := range parts {
		func() {
			defer func() {
				if trouble := recover(); trouble != nil {
					fmt.Fprintf(os.Stderr, "%s: %v\n", part.name, trouble)
					panic(trouble)
				}
			}()
			ctx, cancel := context.WithTimeout(context.Background(), within)
			defer cancel()
			one, other := connect(0), connect(1)
			defer one.Close()
			defer other.Close()
			fmt.Print(part.name)
			part.run(ctx, one, other)
			must(one.Delete(ctx, "", clientv3.WithFromKey()))
			fmt.Println()
		}()
	}
}

// tell shows what a part was told: the same by every server.
func tell(what ...any) {
	fmt.Print(" ", fmt.Sprint(what...))
}

func readsAndWrites(ctx context.Context, one, other *clientv3.Client) {
	for number := range 5 {
		must(one.Put(ctx, fmt.Sprintf("k%d", number), fmt.Sprint(number)))
	}
	answer := must(other.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend)))
	tell(len(answer.Kvs), string(answer.Kvs[0].Key), answer.More, answer.Count)
	put := must(one.Put(ctx, "k1", "new", clientv3.WithPrevKV()))
	tell(string(put.PrevKv.Value))
	past := must(other.Get(ctx, "k1", clientv3.WithRev(put.Header.Revision-1)))
	tell(string(past.Kvs[0].Value))
	deleted := must(other.Delete(ctx, "k", clientv3.WithPrefix(), clientv3.WithPrevKV()))
	tell(deleted.Deleted, len(deleted.PrevKvs))
	_, err := one.Get(ctx, "k", clientv3.WithRev(deleted.Header.Revision+10))
	tell(err)
	_, err = one.Put(ctx, "", "")
	tell(err)
}

// What a client has written by a server it reads there, without asking the leader.
func ownWrites(ctx context.Context, one, other *clientv3.Client) {
	for _, client := range []*clientv3.Client{one, other, connect(2)} {
		for number := range 30 {
			value := fmt.Sprint(number)
			must(client.Put(ctx, "own", value))
			read := must(client.Get(ctx, "own", clientv3.WithSerializable()))
			equal(string(read.Kvs[0].Value), value)
		}
	}
}

func transactions(ctx context.Context, one, other *clientv3.Client) {
	must(one.Put(ctx, "a", "1"))
	answer := must(other.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("a"), "=", "1"), clientv3.Compare(clientv3.Version("a"), ">", 0)).
		Then(clientv3.OpPut("b", "2"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("b")}, nil)).
		Else(clientv3.OpGet("a")).Commit())
	tell(answer.Succeeded, string(answer.Responses[1].GetResponseTxn().Responses[0].GetResponseRange().Kvs[0].Value))
	_, err := one.Txn(ctx).Then(clientv3.OpPut("c", "1"), clientv3.OpPut("c", "2")).Commit()
	tell(err)
	_, err = one.Txn(ctx).Then(clientv3.OpPut("c", "1"), clientv3.OpGet("a", clientv3.WithRev(-3))).Commit()
	tell(err, must(one.Get(ctx, "c")).Count)
}

func watches(ctx context.Context, one, other *clientv3.Client) {
	first := must(one.Put(ctx, "w1", "1")).Header.Revision
	must(one.Put(ctx, "w2", "2"))
	must(one.Delete(ctx, "w1"))
	watch := other.Watch(ctx, "w", clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	equal((<-watch).Created, true)
	seen := 0
	for seen < 3 {
		for _, event := range (<-watch).Events {
			tell(event.Type, string(event.Kv.Key), event.PrevKv != nil)
			seen++
		}
	}
	puts := one.Watch(ctx, "w", clientv3.WithPrefix(), clientv3.WithFilterDelete(), clientv3.WithCreatedNotify())
	<-puts
	must(other.Delete(ctx, "w2"))
	must(other.Put(ctx, "w3", "3"))
	tell(string((<-puts).Events[0].Kv.Key))
	now := must(one.Put(ctx, "w4", "4")).Header.Revision
	must(one.Compact(ctx, now))
	compacted := <-other.Watch(ctx, "w", clientv3.WithPrefix(), clientv3.WithRev(first))
	tell(compacted.Canceled, compacted.CompactRevision == now, compacted.Err())
	_, err := one.Get(ctx, "w", clientv3.WithRev(first))
	tell(err)
}

func progress(ctx context.Context, one, other *clientv3.Client) {
	watch := other.Watch(ctx, "p", clientv3.WithCreatedNotify())
	<-watch
	revision := must(other.Put(ctx, "elsewhere", "")).Header.Revision
	check(other.RequestProgress(ctx))
	told := <-watch
	tell(told.IsProgressNotify(), told.Header.Revision >= revision)
}

// More than one message of gRPC may have, in one revision.
func fragments(ctx context.Context, one, other *clientv3.Client) {
	for number := range 10 {
		must(one.Put(ctx, fmt.Sprintf("f%d", number), strings.Repeat("x", 600_000)))
	}
	deleted := must(one.Delete(ctx, "f", clientv3.WithPrefix())).Header.Revision
	watch := other.Watch(ctx, "f", clientv3.WithPrefix(), clientv3.WithRev(deleted), clientv3.WithPrevKV(), clientv3.WithFragment())
	tell(len((<-watch).Events))
}

func leases(ctx context.Context, one, other *clientv3.Client) {
	const many = 300
	ids, alive := make([]clientv3.LeaseID, many), make([]<-chan *clientv3.LeaseKeepAliveResponse, many)
	for number := range ids {
		ids[number] = must(one.Grant(ctx, 60)).ID
		alive[number] = must(other.KeepAlive(ctx, ids[number]))
	}
	for number, id := range ids {
		kept := <-alive[number]
		equal([]any{kept.ID, kept.TTL}, []any{id, int64(60)})
	}
	listed := must(one.Leases(ctx)).Leases
	found := map[clientv3.LeaseID]bool{}
	for _, lease := range listed {
		found[lease.ID] = true
	}
	for _, id := range ids {
		equal(found[id], true)
	}
	must(one.Put(ctx, "leased", "", clientv3.WithLease(ids[0])))
	told := must(other.TimeToLive(ctx, ids[0], clientv3.WithAttachedKeys()))
	tell(told.GrantedTTL, string(told.Keys[0]))
	for _, id := range ids {
		must(one.Revoke(ctx, id))
	}
	tell(must(other.Get(ctx, "leased")).Count)
	_, err := one.KeepAliveOnce(ctx, ids[0])
	tell(err)
	_, err = one.Revoke(ctx, ids[0])
	tell(err)
}

func session(ctx context.Context, client *clientv3.Client) *concurrency.Session {
	return must(concurrency.NewSession(client, concurrency.WithTTL(60), concurrency.WithContext(ctx)))
}

func mutex(ctx context.Context, one, other *clientv3.Client) {
	first, second := session(ctx, one), session(ctx, other)
	held, wanted := concurrency.NewMutex(first, "lock"), concurrency.NewMutex(second, "lock")
	check(held.Lock(ctx))
	// Read right behind the write, on the server that has taken it.
	owns := must(one.Txn(ctx).If(held.IsOwner()).Commit())
	tell(owns.Succeeded, wanted.TryLock(ctx))
	check(held.Unlock(ctx))
	check(wanted.Lock(ctx))
	check(second.Close())
	check(held.Lock(ctx))
	check(first.Close())
}

func election(ctx context.Context, one, other *clientv3.Client) {
	first, second := session(ctx, one), session(ctx, other)
	leads, follows := concurrency.NewElection(first, "vote"), concurrency.NewElection(second, "vote")
	observed := follows.Observe(ctx)
	check(leads.Campaign(ctx, "one"))
	tell(string((<-observed).Kvs[0].Value))
	check(leads.Proclaim(ctx, "uno"))
	tell(string((<-observed).Kvs[0].Value))
	var elected sync.WaitGroup
	elected.Go(func() { check(follows.Campaign(ctx, "two")) })
	check(leads.Resign(ctx))
	elected.Wait()
	tell(string(must(leads.Leader(ctx)).Kvs[0].Value))
	check(first.Close())
	check(second.Close())
}

// Money goes from one to another, and none is made or lost.
func stm(ctx context.Context, one, other *clientv3.Client) {
	const accounts, each = 4, 25
	for account := range accounts {
		must(one.Put(ctx, fmt.Sprint("account", account), "100"))
	}
	var group sync.WaitGroup
	for worker, client := range []*clientv3.Client{one, other, one, other} {
		group.Go(func() {
			for turn := range each {
				from, to := fmt.Sprint("account", (worker+turn)%accounts), fmt.Sprint("account", (worker+turn+1)%accounts)
				must(concurrency.NewSTM(client, func(stm concurrency.STM) error {
					var a, b int
					fmt.Sscan(stm.Get(from), &a)
					fmt.Sscan(stm.Get(to), &b)
					stm.Put(from, fmt.Sprint(a-1))
					stm.Put(to, fmt.Sprint(b+1))
					return nil
				}))
			}
		})
	}
	group.Wait()
	sum := 0
	for _, account := range must(other.Get(ctx, "account", clientv3.WithPrefix())).Kvs {
		var money int
		fmt.Sscan(string(account.Value), &money)
		sum += money
	}
	tell(sum)
}

func leasingKV(ctx context.Context, one, other *clientv3.Client) {
	first, closeFirst, err := leasing.NewKV(one, "leasing/")
	check(err)
	defer closeFirst()
	second, closeSecond, err := leasing.NewKV(other, "leasing/")
	check(err)
	defer closeSecond()
	must(first.Put(ctx, "l", "1"))
	tell(string(must(first.Get(ctx, "l")).Kvs[0].Value))
	must(second.Put(ctx, "l", "2"))
	tell(string(must(first.Get(ctx, "l")).Kvs[0].Value), string(must(second.Get(ctx, "l")).Kvs[0].Value))
}

func namespaced(ctx context.Context, one, other *clientv3.Client) {
	kv, watcher := namespace.NewKV(one, "space/"), namespace.NewWatcher(other, "space/")
	watch := watcher.Watch(ctx, "n", clientv3.WithCreatedNotify())
	<-watch
	must(kv.Put(ctx, "n", "1"))
	tell(string((<-watch).Events[0].Kv.Key), string(must(other.Get(ctx, "space/n")).Kvs[0].Value))
	tell(string(must(kv.Get(ctx, "", clientv3.WithFromKey())).Kvs[0].Key))
}

func mirrored(ctx context.Context, one, other *clientv3.Client) {
	for number := range 2500 {
		if number%100 == 0 {
			var puts []clientv3.Op
			for more := range 100 {
				puts = append(puts, clientv3.OpPut(fmt.Sprintf("m%05d", number+more), ""))
			}
			must(one.Txn(ctx).Then(puts...).Commit())
		}
	}
	syncer := mirror.NewSyncer(other, "m", 0)
	base, trouble := syncer.SyncBase(ctx)
	keys := 0
	for answer := range base {
		keys += len(answer.Kvs)
	}
	for err := range trouble {
		check(err)
	}
	updates := syncer.SyncUpdates(ctx)
	must(one.Put(ctx, "m-new", ""))
	tell(keys, string((<-updates).Events[0].Kv.Key))
}

func ordered(ctx context.Context, one, other *clientv3.Client) {
	kv := ordering.NewKV(one.KV, ordering.NewOrderViolationSwitchEndpointClosure(one))
	must(kv.Put(ctx, "o", "1"))
	for range 20 {
		tell(string(must(kv.Get(ctx, "o", clientv3.WithSerializable())).Kvs[0].Value))
	}
}

func compressed(ctx context.Context, one, other *clientv3.Client) {
	client := connect(1, grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	defer client.Close()
	watch := client.Watch(ctx, "z", clientv3.WithCreatedNotify())
	<-watch
	must(client.Put(ctx, "z", strings.Repeat("z", 100_000)))
	tell(len((<-watch).Events[0].Kv.Value))
}

// A name in the store stands for a server: what is sent as its authority is no host.
func resolved(ctx context.Context, one, other *clientv3.Client) {
	manager := must(endpoints.NewManager(one, "dir/name"))
	check(manager.AddEndpoint(ctx, "dir/name/1", endpoints.Endpoint{Addr: addresses[0]}))
	connection := must(grpc.NewClient("etcd:///dir/name", grpc.WithResolvers(must(resolver.NewBuilder(other))),
		grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer connection.Close()
	answer := must(grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{}))
	tell(answer.Status)
}

func maintenance(ctx context.Context, one, other *clientv3.Client) {
	must(one.Put(ctx, "m", "1"))
	hashes := map[uint32]bool{}
	revision := must(one.Get(ctx, "m")).Header.Revision
	for place := range addresses {
		client := connect(place)
		must(client.Get(ctx, "m"))
		hashes[must(client.HashKV(ctx, addresses[place], revision)).Hash] = true
		must(client.Defragment(ctx, addresses[place]))
		status := must(client.Status(ctx, addresses[place]))
		equal([]bool{status.Leader != 0, status.RaftTerm > 0, status.IsLearner}, []bool{true, true, false})
		client.Close()
	}
	tell(len(hashes), len(must(one.AlarmList(ctx)).Alarms))
	snapshot := must(one.Snapshot(ctx))
	tell(must(io.Copy(io.Discard, snapshot)) > 0)
	members := must(one.MemberList(ctx)).Members
	tell(len(members) == len(addresses))
	_, err := one.MemberRemove(ctx, 7)
	tell(err)
}

func health(ctx context.Context, one, other *clientv3.Client) {
	client := grpc_health_v1.NewHealthClient(one.ActiveConnection())
	tell(must(client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})).Status)
	_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nothing"})
	tell(err)
}

func auth(ctx context.Context, one, other *clientv3.Client) {
	must(one.UserAdd(ctx, "root", "pw"))
	must(one.UserGrantRole(ctx, "root", must2(one.RoleAdd(ctx, "root"))("root")))
	must(one.UserAdd(ctx, "app", "pw"))
	must(one.RoleAdd(ctx, "apps"))
	must(one.RoleGrantPermission(ctx, "apps", "app/", "app0", clientv3.PermissionType(clientv3.PermReadWrite)))
	must(one.UserGrantRole(ctx, "app", "apps"))
	must(one.AuthEnable(ctx))
	login := func(name, password string) (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{Endpoints: addresses, Username: name, Password: password, DialTimeout: within})
	}
	app := must(login("app", "pw"))
	defer app.Close()
	must(app.Put(ctx, "app/1", "1"))
	_, err := app.Put(ctx, "other", "1")
	tell(err == rpctypes.ErrPermissionDenied)
	_, err = login("app", "wrong")
	tell(err)
	_, err = other.Get(ctx, "app/1")
	tell(err)
	root := must(login("root", "pw"))
	defer root.Close()
	users := must(root.UserList(ctx)).Users
	sort.Strings(users)
	tell(users)
	must(root.AuthDisable(ctx))
	tell(string(must(other.Get(ctx, "app/1")).Kvs[0].Value))
	// The next to ask begins without users.
	for _, name := range users {
		must(other.UserDelete(ctx, name))
	}
	for _, name := range must(other.RoleList(ctx)).Roles {
		must(other.RoleDelete(ctx, name))
	}
}

// must2 gives a value behind a call that succeeded.
func must2[T any](_ T, err error) func(string) string {
	check(err)
	return func(value string) string { return value }
}
