package idle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// ErrNoOwners says that the manager is of a version that knows no owners, and that the call would have changed what others hold.
var ErrNoOwners = errors.New("the lifecycle manager is older than this client and knows no owners; accepted is the call without an owner, " +
	"which replaces the triggers of all")

// Client speaks to a Manager by its Unix socket.
type Client struct {
	http  *http.Client
	owner string
}

// NewClient returns a client of the socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// ForOwner returns a client whose triggers and leases are those of that owner: see Manager.Owner. An older manager knows no
// owners; there the client adds and removes OWNER:ID, and UpdateTriggers returns ErrNoOwners.
func (c *Client) ForOwner(name string) *Client { return &Client{c.http, name} }

// held sends a request about one trigger or lease of the client's owner. path is its collection; body makes the content
// for the id that is used, which has the owner in it where the manager knows no owners.
func (c *Client) held(ctx context.Context, method, path, id string, body func(id string) any, answer any) error {
	request := func(prefix, id string) error {
		target := prefix + path
		if method != http.MethodPost {
			target += "/" + url.PathEscape(id)
		}
		var content any
		if body != nil {
			content = body(id)
		}
		return c.do(ctx, method, target, content, answer)
	}
	if c.owner == "" {
		return request("/v1", id)
	}
	err := request("/v1/owners/"+url.PathEscape(c.owner), id)
	if errors.Is(err, errNotFound) {
		return request("/v1", c.owner+":"+id)
	}
	return err
}

// RecordActivity is Manager.RecordActivity.
func (c *Client) RecordActivity(ctx context.Context, source string) error {
	return c.do(ctx, http.MethodPost, "/v1/activity", activityRequest{source}, nil)
}

// AddTrigger is Owner.AddTrigger.
func (c *Client) AddTrigger(ctx context.Context, id, reason string) error {
	return c.held(ctx, http.MethodPut, "/triggers", id, func(string) any { return triggerRequest{reason} }, nil)
}

// RemoveTrigger is Owner.RemoveTrigger, for leases too.
func (c *Client) RemoveTrigger(ctx context.Context, id string) error {
	return c.held(ctx, http.MethodDelete, "/triggers", id, nil, nil)
}

// UpdateTriggers is Owner.UpdateTriggers.
func (c *Client) UpdateTriggers(ctx context.Context, ids ...string) error {
	if ids == nil {
		ids = []string{}
	}
	if c.owner == "" {
		return c.do(ctx, http.MethodPut, "/v1/triggers", triggersRequest{ids}, nil)
	}
	err := c.do(ctx, http.MethodPut, "/v1/owners/"+url.PathEscape(c.owner)+"/triggers", triggersRequest{ids}, nil)
	if errors.Is(err, errNotFound) {
		return ErrNoOwners
	}
	return err
}

// Lease is Owner.Lease.
func (c *Client) Lease(ctx context.Context, id string, ttl time.Duration) (time.Time, error) {
	var answer leaseAnswer
	err := c.held(ctx, http.MethodPost, "/leases", id, func(id string) any { return leaseRequest{id, ttl.Seconds()} }, &answer)
	return answer.ExpiresAt, err
}

// Snooze is Manager.Snooze.
func (c *Client) Snooze(ctx context.Context, d time.Duration) (deadline time.Time, granted time.Duration, err error) {
	var answer snoozeAnswer
	err = c.do(ctx, http.MethodPost, "/v1/snooze", snoozeRequest{d.Seconds()}, &answer)
	return answer.Deadline, time.Duration(answer.GrantedSeconds * float64(time.Second)), err
}

// Status is Manager.Status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Events copies the stream of events until ctx ends.
func (c *Client) Events(ctx context.Context, to io.Writer) error {
	response, err := c.send(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(to, response.Body)
	return err
}

// errNotFound says that the manager has no such path: it is of another version.
var errNotFound = errors.New("404 Not Found")

func (c *Client) do(ctx context.Context, method, path string, body, answer any) error {
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://lifecycle"+path, content)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reach the lifecycle manager: %w", err)
	}
	if response.StatusCode < http.StatusBadRequest {
		return response, nil
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return nil, errNotFound
	}
	var said struct{ Error string }
	if err := json.NewDecoder(io.LimitReader(response.Body, maxBody)).Decode(&said); err != nil || said.Error == "" {
		return nil, errors.New(response.Status)
	}
	return nil, errors.New(said.Error)
}
