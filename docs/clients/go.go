// usage: go run go.go URL SALE, as in go run go.go http://127.0.0.1:8080/ticket sale-4711.txt
// Sends a ticket until it is accepted (exit code 0) or rejected for good (1). TICKETD_TOKEN is a source's token, if any.
package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	url, sale, key := os.Args[1], must(os.ReadFile(os.Args[2])), os.Args[2]+".key"
	// Made once, and on disk before the first attempt: whatever is sent again, also by a later run, is the same ticket.
	if _, err := os.Stat(key); err != nil {
		file := must(os.Create(key + ".new"))
		must(fmt.Fprintf(file, "%x", must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128)))))
		must(0, file.Sync())
		must(0, os.Rename(key+".new", key))
	}
	client, request := http.Client{Timeout: 15 * time.Second}, must(http.NewRequest("POST", url, bytes.NewReader(sale)))
	request.Header.Set("Content-Type", "text/plain")
	request.Header.Set("Idempotency-Key", string(must(os.ReadFile(key))))
	request.Header.Set("Authorization", "Bearer "+os.Getenv("TICKETD_TOKEN"))
	for pause := 500 * time.Millisecond; ; pause = (pause*2-1)%time.Minute + 1 {
		status, text, after := attempt(client, request)
		if status == 202 {
			fmt.Println(text)
			return
		} else if status > 0 && status < 500 && status != 408 && status != 429 {
			log.Fatal("rejected: ", text)
		}
		wait := pause
		if seconds, err := strconv.ParseUint(after, 10, 8); err == nil && seconds > 0 {
			wait = time.Duration(seconds) * time.Second
		}
		time.Sleep(wait + wait*time.Duration(must(rand.Int(rand.Reader, big.NewInt(1000))).Int64())/1000)
	}
}

// Status, text and Retry-After of the answer; 0 where there is none, or not all of it: the ticket may have arrived.
func attempt(client http.Client, request *http.Request) (int, string, string) {
	request.Body = must(request.GetBody())
	answer, err := client.Do(request)
	if err != nil {
		return 0, "", ""
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err == nil {
		return answer.StatusCode, string(text), answer.Header.Get("Retry-After")
	}
	return 0, "", ""
}

// Ends the program where something failed that no retry would mend.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
