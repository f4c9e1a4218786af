// Go's net/http as tests/servers starts it: the standard library alone, told what to do by the variable SETTINGS.
//
// GET /small and /big; POST /upload/{i} compares with upload i; POST /count/{id} counts in a log; GET /hold/{n} answers
// when n such requests are here at the same time. SIGTERM shuts down: GOAWAY, then what runs may finish.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const big = 1 << 20

type settings struct {
	Port         int
	Cert         string
	Key          string
	Pattern      string
	Count        string
	GoawayAfter  int64
	Idle         int
	H1Only       bool
	KeepAliveOff bool
}

type server struct {
	settings
	pattern []byte
	log     *os.File
	mutex   sync.Mutex
	held    *sync.Cond
	holding int
}

// The number of requests on a connection.
type requests struct{ atomic.Int64 }

type requestsKey struct{}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	count := r.Context().Value(requestsKey{}).(*requests).Add(1)
	if s.GoawayAfter != 0 && count >= s.GoawayAfter {
		// Over HTTP/2, Go makes a GOAWAY of this.
		w.Header().Set("Connection", "close")
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch kind {
	case "small":
		io.WriteString(w, "a small file\n")
	case "big":
		w.Write(s.pattern[:big])
	case "upload":
		s.upload(w, r, rest)
	case "count":
		fmt.Fprintln(s.log, rest)
		io.WriteString(w, rest)
	case "hold":
		s.hold(rest)
		io.WriteString(w, "held")
	default:
		http.NotFound(w, r)
	}
}

func (s *server) upload(w http.ResponseWriter, r *http.Request, number string) {
	body, err := io.ReadAll(r.Body)
	start, numberErr := strconv.Atoi(number)
	if err != nil || numberErr != nil || !bytes.Equal(body, s.pattern[start:start+big]) {
		http.Error(w, fmt.Sprintf("%d bytes, %v", len(body), err), http.StatusBadRequest)
		return
	}
	io.WriteString(w, "identical")
}

func (s *server) hold(number string) {
	wanted, _ := strconv.Atoi(number)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.holding++
	s.held.Broadcast()
	for s.holding < wanted {
		s.held.Wait()
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	s := &server{}
	must(json.Unmarshal([]byte(os.Getenv("SETTINGS")), &s.settings))
	s.held = sync.NewCond(&s.mutex)
	var err error
	s.pattern, err = os.ReadFile(s.Pattern)
	must(err)
	s.log, err = os.OpenFile(s.Count, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(err)
	h := &http.Server{
		Addr:        fmt.Sprintf("127.0.0.1:%d", s.Port),
		Handler:     s,
		IdleTimeout: time.Duration(s.Idle) * time.Millisecond,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, requestsKey{}, &requests{})
		},
	}
	if s.H1Only {
		h.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	h.SetKeepAlivesEnabled(!s.KeepAliveOff)
	over := make(chan struct{})
	go func() {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		h.Shutdown(context.Background())
		close(over)
	}()
	if err := h.ListenAndServeTLS(s.Cert, s.Key); err != http.ErrServerClosed {
		must(err)
	}
	<-over
}
