// Agent is the agent of the end-to-end tests: it does what it is told over HTTP, on port 8080 by way of the API server's Pod proxy and
// on port 3000 by users whom the gateway connects. It is who calls the gateway, too.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runDir is lifecycle.RunDir. The agent knows of the system what an agent may know: paths and exit codes.
const runDir = "/var/run/agent"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "exit" { // an exec session that ends with a code of its own
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	}
	if len(os.Args) > 1 && os.Args[1] == "stand" { // a container that another injector has put beside the agent
		stopped := make(chan os.Signal, 1)
		signal.Notify(stopped, syscall.SIGTERM)
		<-stopped
		return
	}
	if len(os.Args) > 3 && os.Args[1] == "with" { // with NAME=VALUE PROGRAM...: runs a program with a shorter patience, say
		name, value, _ := strings.Cut(os.Args[2], "=")
		if err := os.Setenv(name, value); err != nil {
			log.Fatal(err)
		}
		log.Fatal(syscall.Exec(os.Args[3], os.Args[3:], os.Environ()))
	}
	if len(os.Args) > 2 && os.Args[1] == "hurry" { // hurry PROGRAM...: runs a program for which time goes faster
		if err := hurry(); err != nil {
			log.Fatal(err)
		}
		log.Fatal(syscall.Exec(os.Args[2], os.Args[2:], os.Environ()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	handler := handler()
	tests := &http.Server{Addr: ":8080", Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	users := &http.Server{Addr: ":3000", Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		say("terminated", 0)
		_ = tests.Close()
		_ = users.Close()
	}()
	go converse(os.Stdin)
	go serve(users)
	serve(tests)
}

func serve(server *http.Server) {
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Panic(err)
	}
}

// converse answers each line that is typed. Without a terminal or an open stdin there is none.
func converse(typed io.Reader) {
	for lines := bufio.NewScanner(typed); lines.Scan(); {
		fmt.Printf("you said %q\n", lines.Text())
	}
}

// say leaves the time in the log, by which the tests measure.
func say(what string, code int) {
	line, _ := json.Marshal(map[string]any{"event": what, "code": code, "unixNano": time.Now().UnixNano()})
	fmt.Println(string(line))
}

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	// exit ends the agent with ?code ?after a while, after it has left ?file in the exit code's file, or as if it had been idle
	// before.
	mux.HandleFunc("POST /exit", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		if file := r.FormValue("file"); file != "" {
			if err := os.WriteFile(filepath.Join(runDir, "exit_code"), []byte(file), 0o644); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		after, _ := time.ParseDuration(r.FormValue("after"))
		fmt.Fprintln(w, "exiting")
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		time.AfterFunc(max(after, time.Second/2), func() { // not before the answer is through, by way of the API server and the kubelet
			say("exit", code)
			os.Exit(code)
		})
	})
	// file leaves something in the run directory without ending.
	mux.HandleFunc("POST /file", func(w http.ResponseWriter, r *http.Request) {
		report(w, os.WriteFile(filepath.Join(runDir, filepath.Base(r.FormValue("name"))), []byte(r.FormValue("content")), 0o644))
	})
	// data writes and reads what is to be kept.
	mux.HandleFunc("POST /data", func(w http.ResponseWriter, r *http.Request) {
		report(w, os.WriteFile("/data/kept", []byte(r.FormValue("content")), 0o644))
	})
	mux.HandleFunc("GET /data", func(w http.ResponseWriter, _ *http.Request) {
		data, err := os.ReadFile("/data/kept")
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	})
	// kill sends ?signal to ?pid, 0 meaning itself.
	mux.HandleFunc("POST /kill", func(w http.ResponseWriter, r *http.Request) {
		pid, _ := strconv.Atoi(r.FormValue("pid"))
		number, _ := strconv.Atoi(r.FormValue("signal"))
		if pid == 0 {
			pid = os.Getpid()
		}
		report(w, syscall.Kill(pid, syscall.Signal(number)))
	})
	// oom takes memory until there is none.
	mux.HandleFunc("POST /oom", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "eating")
		go func() {
			var all [][]byte
			for {
				block := make([]byte, 1<<20)
				for i := range block {
					block[i] = 1
				}
				all = append(all, block)
				runtime.KeepAlive(all)
			}
		}()
	})
	// write leaves ?content in a file at ?path.
	mux.HandleFunc("POST /write", func(w http.ResponseWriter, r *http.Request) {
		report(w, os.WriteFile(r.FormValue("path"), []byte(r.FormValue("content")), 0o644))
	})
	// read tries to read a file, such as the sidecar's token by way of /proc.
	mux.HandleFunc("GET /read", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		_, _ = w.Write(data)
	})
	// processes lists what the agent sees: PID and name.
	mux.HandleFunc("GET /processes", func(w http.ResponseWriter, _ *http.Request) {
		found := map[string]string{}
		paths, _ := filepath.Glob("/proc/[0-9]*/comm")
		for _, path := range paths {
			if name, err := os.ReadFile(path); err == nil {
				found[filepath.Base(filepath.Dir(path))] = string(name[:len(name)-1])
			}
		}
		_ = json.NewEncoder(w).Encode(found)
	})
	mux.HandleFunc("/manager/", manager)
	delivered := &seen{count: map[string]int{}}
	mux.HandleFunc("/echo", delivered.echo)
	mux.HandleFunc("GET /seen", delivered.list)
	mux.HandleFunc("/call", call)
	mux.HandleFunc("GET /measure", measure)
	return mux
}

func report(w io.Writer, err error) {
	if err != nil {
		fmt.Fprintln(w, "error:", err)
		return
	}
	fmt.Fprintln(w, "done")
}
