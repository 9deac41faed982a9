//go:build ignore

// Makes daemon.json: records as snet-daemon stores them, by Go's own encoder. The structures have the names and fields of the daemon's, and
// fixed signatures, since gob knows no others.
//
//	go run daemon.go > daemon.json
package main

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
)

type Address [20]byte
type State int

type PaymentChannelData struct {
	ChannelID        *big.Int
	Nonce            *big.Int
	State            State
	Sender           Address
	Recipient        Address
	GroupID          [32]byte
	FullAmount       *big.Int
	Expiration       *big.Int
	Signer           Address
	AuthorizedAmount *big.Int
	Signature        []byte
}

type Payment struct {
	MpeContractAddress Address
	ChannelID          *big.Int
	ChannelNonce       *big.Int
	Amount             *big.Int
	Signature          []byte
}

type PrePaidData struct{ Amount *big.Int }

type FreeCallUserData struct{ FreeCallsMade int }

type Record struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

const service = "sepolia/org/99ybRIg2wAx55mqVsA6sB4S7WxPQHNKqa4BPu/bhj+U="
const contract = "0xf25186b5081ff5ce73482ad761db0eb0d25abfbf"
const signer = "101a018fe784bf01d538b5d4dfa311d047dba491"

func address(text string) (a Address) { b, _ := hex.DecodeString(text); copy(a[:], b); return }

func main() {
	var records []Record
	add := func(key string, value any) {
		var buffer bytes.Buffer
		if err := gob.NewEncoder(&buffer).Encode(value); err != nil {
			panic(err)
		}
		records = append(records, Record{key, hex.EncodeToString(buffer.Bytes())})
	}
	// What the daemon's test key has signed for channel 42 at nonce 3: 12345.
	signature, _ := hex.DecodeString("cffdc9711cbd81ad3f9dfb4f9e93617a1bc5bb83ccf4e201b46a75424affee9e61edd6eebb86fb64be8c10efba1507b7df5ccb3986296a0da900b3c65a50dfbf00")
	group := [32]byte{0x7b}
	channel := func(id, nonce int64, authorized *big.Int, signature []byte, state State) PaymentChannelData {
		return PaymentChannelData{big.NewInt(id), big.NewInt(nonce), state, address(signer), Address{0x4e, 0xff}, group,
			big.NewInt(20000), big.NewInt(100), address(signer), authorized, signature}
	}
	claimed, _ := hex.DecodeString("b2d6008db579fdafd51f7c47df609862c935805cb977ad66df9fbbb41021ad8400b991cce1b63555d8f7e52ab4068fa58cd688f2f79f088db5ed12fa86e0e25500")
	at := service + "/" + contract
	add(at+"//payment-channel/storage/{ID: 42}", channel(42, 3, big.NewInt(12345), signature, 0))
	add(at+"//payment/storage/42/2", Payment{Address{}, big.NewInt(42), big.NewInt(2), big.NewInt(12345), claimed})
	add(at+"//payment-channel/storage/{ID: 7}", channel(7, 0, big.NewInt(0), nil, 0))
	add(at+"//payment-channel/storage/{ID: 8}", channel(8, 1, new(big.Int).Lsh(big.NewInt(1), 13), bytes.Repeat([]byte{0xee}, 65), 1))
	add(at+"//payment-channel/storage/{ID: 9}", PaymentChannelData{ChannelID: big.NewInt(9)})
	add(service+"//PrePaid/storage/{ID:42/P}", PrePaidData{big.NewInt(100)})
	add(service+"//PrePaid/storage/{ID:42/U}", PrePaidData{big.NewInt(30)})
	add(service+"//PrePaid/storage/{ID:42/R}", PrePaidData{big.NewInt(10)})
	add(service+"//free-call-user/storage/{ID:0x"+signer+"/ann/org/service/99ybRIg2wAx55mqVsA6sB4S7WxPQHNKqa4BPu/bhj+U=}", FreeCallUserData{3})
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	if err := out.Encode(records); err != nil {
		panic(err)
	}
}
