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

// Client speaks to a Manager by its Unix socket.
type Client struct{ http *http.Client }

// NewClient returns a client of the socket.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// RecordActivity is Manager.RecordActivity.
func (c *Client) RecordActivity(ctx context.Context, source string) error {
	return c.do(ctx, http.MethodPost, "/v1/activity", activityRequest{source}, nil)
}

// AddTrigger is Manager.AddTrigger.
func (c *Client) AddTrigger(ctx context.Context, id, reason string) error {
	return c.do(ctx, http.MethodPut, "/v1/triggers/"+url.PathEscape(id), triggerRequest{reason}, nil)
}

// RemoveTrigger is Manager.RemoveTrigger, for leases too.
func (c *Client) RemoveTrigger(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/triggers/"+url.PathEscape(id), nil, nil)
}

// UpdateTriggers is Manager.UpdateTriggers.
func (c *Client) UpdateTriggers(ctx context.Context, ids ...string) error {
	if ids == nil {
		ids = []string{}
	}
	return c.do(ctx, http.MethodPut, "/v1/triggers", triggersRequest{ids}, nil)
}

// Lease is Manager.Lease.
func (c *Client) Lease(ctx context.Context, id string, ttl time.Duration) (time.Time, error) {
	var answer leaseAnswer
	err := c.do(ctx, http.MethodPost, "/v1/leases", leaseRequest{id, ttl.Seconds()}, &answer)
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
	var said struct{ Error string }
	if err := json.NewDecoder(io.LimitReader(response.Body, maxBody)).Decode(&said); err != nil || said.Error == "" {
		return nil, errors.New(response.Status)
	}
	return nil, errors.New(said.Error)
}
