// Requests a page over HTTP/2, and prints the version and the page.
//
// usage: client CA URL    at 127.0.0.1, whatever the URL's name
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	certificate, err := os.ReadFile(os.Args[1])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	page, err := url.Parse(os.Args[2])
	check(err)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, "127.0.0.1:"+page.Port())
		},
	}
	response, err := (&http.Client{Transport: transport}).Get(page.String())
	check(err)
	body, err := io.ReadAll(response.Body)
	check(err)
	os.Stdout.WriteString(response.Proto + "\n" + string(body))
}
