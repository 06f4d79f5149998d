package ctl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

func (c *cli) keyCsrCmd() *cobra.Command {
	var req kmswire.GenerateCsrRequest
	var algorithm, out string
	var names []string
	var force bool
	cmd := &cobra.Command{
		Use:   "csr KEY --cn NAME",
		Short: "Make a certificate signing request for an asymmetric key",
		Long: `Make a certificate signing request (CSR, PKCS #10) for an asymmetric key that signs, to send to a certification authority, which makes
a certificate of it. The private key stays where it is.

Names are taken as they are written: an organization's is the one of its business registration, with its "&" and "-". The country is
the code of two letters of ISO 3166-1, such as JP. International domain names are written with their A-labels (xn--...).

Clients of a server look at its alternative names (--san), not at its common name, and nothing is taken over from one into the other.`,
		Example: `  keywardctl key csr alias/web --cn www.example.org --san DNS:www.example.org,DNS:example.org --out web.csr
  keywardctl key csr alias/release --cn "Example Release" --o "Example & Sons, Ltd." --ou Build --st 東京 --l 千代田区 --c JP --email ca@example.org --out release.csr
  keywardctl key csr alias/peer --cn peer-7 --san IP:192.0.2.7,URI:spiffe://example.org/peer-7 --algorithm RSA_PSS_SHA_256`,
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			if err := required(cmd, "cn"); err != nil {
				return err
			}
			k, err := c.describe(ctx, a[0])
			if err != nil {
				return err
			}
			known, ok := signAlgorithms[k.KeySpec]
			if !ok {
				return hint(fmt.Errorf("%s (%s) can't sign, so it can't make a request", a[0], k.KeySpec), "keywardctl key create --spec EC_P256 makes a key that can")
			}
			req.Algorithm = known[0]
			if algorithm != "" {
				if req.Algorithm = anyCase(algorithm, known); !slices.Contains(known, req.Algorithm) {
					return usagef("--algorithm %s is not for %s keys; they have %s", algorithm, k.KeySpec, join(known))
				}
			}
			req.KeyID, req.Country, req.SubjectAlternativeNames = k.KeyID, strings.ToUpper(req.Country), strings.Join(names, ",")
			o, err := c.createOutput(out, 0o666, force, false)
			if err != nil {
				return err
			}
			defer o.discard()
			var answer kmswire.GenerateCsrResponse
			if err := c.call(ctx, "GenerateCsr", &req, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			if out == stdio && c.format == "json" {
				return c.json(answer)
			}
			if _, err := o.Write([]byte(answer.Csr)); err != nil {
				return err
			}
			if err := o.commit(); err != nil {
				return err
			}
			c.sayRequest(&req, k, answer.KeyVersionID, out)
			if out == stdio {
				return nil
			}
			return c.made(madeFile{File: out, KeyID: answer.KeyID, KeyVersionID: answer.KeyVersionID, Algorithm: string(req.Algorithm)})
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.CommonName, "cn", "", "common name: what the certificate is for, such as a domain, service or device")
	f.StringVar(&req.OrganizationName, "o", "", "organization, exactly as it is registered")
	f.StringVar(&req.OrganizationalUnit, "ou", "", "organizational unit")
	f.StringVar(&req.Province, "st", "", "state or province")
	f.StringVar(&req.Locality, "l", "", "locality: city, town or ward")
	f.StringVar(&req.Country, "c", "", "country: two letters of ISO 3166-1")
	f.StringVar(&req.EmailAddress, "email", "", "e-mail address of a contact, in the subject")
	f.StringArrayVar(&names, "san", nil, "alternative names: DNS:NAME, IP:ADDRESS, URI:URI, email:ADDRESS, commas between them; may be given again")
	f.StringVar(&algorithm, "algorithm", "", "RSA_PKCS1_SHA_256 (default for RSA), RSA_PSS_SHA_256, or ECDSA_SHA_256")
	f.StringVar(&req.KeyVersionID, "key-version", "", "version of the key; the newest if not given")
	f.StringVar(&out, "out", stdio, `file to write; "-" for stdout`)
	f.BoolVar(&force, "force", false, "replace a file that is there")
	choices(cmd, "algorithm", kmswire.RSAPKCS1SHA256, kmswire.RSAPSSSHA256, kmswire.ECDSASHA256)
	return cmd
}

// sayRequest tells what was made, how to look at it, and what comes next.
func (c *cli) sayRequest(req *kmswire.GenerateCsrRequest, k *kmswire.KeyMetadata, version, out string) {
	file := "FILE"
	if out != stdio {
		file = quote(out)
		c.say("%s: request for a certificate for %s, signed by %s (%s)", out, plain(req.CommonName), version, req.Algorithm)
	}
	c.say("look at it: openssl req -in %s -noout -verify -text -nameopt utf8,sep_comma_plus_space,-esc_msb", file)
	c.say("next: send it to your certification authority")
	if req.SubjectAlternativeNames == "" {
		c.say("note: without --san it is no request for a server: clients look for the name there")
	}
	if k.KeySpec == kmswire.ECP256K {
		c.say("note: public certification authorities take no keys on secp256k1 (%s)", k.KeySpec)
	}
}
