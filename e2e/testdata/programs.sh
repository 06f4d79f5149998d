# What programs of other people do with PKCS #11, through the module $MODULE. $NAME tells its objects from those of other modules. A step that fails ends
# the script; says looks at what a program printed, as several of them end well whatever happened.
says() { # TEXT... of the command before --
	local texts=()
	while [ "$1" != -- ]; do texts+=("$1"); shift; done
	shift
	echo "+ $*"
	out=$("$@" 2>&1) || { echo "$out"; echo "FAILED: $*"; exit 1; }
	for text in "${texts[@]}"; do
		if [ "${text#!}" != "$text" ]; then
			! grep -q -- "${text#!}" <<<"$out" || { echo "$out"; echo "SAYS ${text#!}: $*"; exit 1; }
		else
			grep -q -- "$text" <<<"$out" || { echo "$out"; echo "DOES NOT SAY $text: $*"; exit 1; }
		fi
	done
}
# The end of CKA_IDs: the objects of the other run with the same daemon must have others.
case $NAME in
module) id=11 ;;
p11kit) id=12 ;;
esac

# OpenSC: keys of all kinds, and all that pkcs11-tool tests itself.
for token in kst-software kst-hardware; do
	tool="pkcs11-tool --module $MODULE --token-label $token"
	login="--login --pin 12345678"
	says 'RSA' -- $tool $login --keypairgen --key-type rsa:2048 --label $NAME-sign --id 01$id --usage-sign
	says 'RSA' -- $tool $login --keypairgen --key-type rsa:2048 --label $NAME-decrypt --id 02$id --usage-decrypt
	says 'EC' -- $tool $login --keypairgen --key-type EC:prime256v1 --label $NAME-ec --id 03$id --usage-sign
	says 'AES' -- $tool $login --keygen --key-type aes:32 --label $NAME-aes --id 04$id
	says 'No errors' 'all 4 digest functions seem to work' 'all 4 signature functions seem to work' 'RSA-PKCS: OK' 'SHA256-RSA-PKCS: OK' '!ERR' '!failed' -- \
		$tool $login --test --allow-sw
	says '==> OK' '!failed' -- $tool $login --session-rw --test-ec --key-type EC:prime256v1 --id 05$id --label $NAME-tested
	says '!failed' -- $tool --test-fork
	says '!rv:CKR_DEVICE' '!rv:CKR_GENERAL' 'test_threads cleanup finished' -- $tool $login --test-threads ILGISLT0 --test-threads ILGISLT0
	if [ "$NAME" != p11kit ]; then # 0.24.1 can't send such a list
		says 'Allowed mechanisms: RSA-PKCS,SHA256-RSA-PKCS$' -- $tool $login --keypairgen --key-type rsa:2048 --label $NAME-only --id 06$id --usage-sign --allowed-mechanisms SHA256-RSA-PKCS,RSA-PKCS
	fi
	date >letter
	says -- $tool $login --sign --mechanism SHA256-RSA-PKCS --id 01$id --input-file letter --output-file letter.sig
	says -- $tool --read-object --type pubkey --id 01$id --output-file public.der
	says 'Verified OK' -- openssl dgst -sha256 -verify <(openssl pkey -pubin -inform DER -in public.der) -signature letter.sig letter
	if [ "$NAME" = p11kit ]; then # 0.24.1 knows no ECDSA with a hash
		openssl dgst -sha256 -binary -out digest letter
		says -- $tool $login --sign --mechanism ECDSA --signature-format openssl --id 03$id --input-file digest --output-file letter.sig
	else
		says -- $tool $login --sign --mechanism ECDSA-SHA256 --signature-format openssl --id 03$id --input-file letter --output-file letter.sig
	fi
	says -- $tool --read-object --type pubkey --id 03$id --output-file public.der
	says 'Verified OK' -- openssl dgst -sha256 -verify <(openssl pkey -pubin -inform DER -in public.der) -signature letter.sig letter
	says -- $tool --read-object --type pubkey --id 02$id --output-file public.der
	openssl pkeyutl -encrypt -pubin -keyform DER -inkey public.der -in letter -out letter.enc -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256
	says -- $tool $login --decrypt --mechanism RSA-PKCS-OAEP --hash-algorithm SHA256 --mgf MGF1-SHA256 --id 02$id --input-file letter.enc --output-file letter.dec
	cmp letter letter.dec
done

# OpenSSL: a request, a certificate, signed and encrypted mail.
key="pkcs11:token=kst-hardware;object=$NAME-ec;type=private"
engine='-engine pkcs11 -keyform engine'
says -- openssl req -new $engine -key "$key" -subj /CN=$NAME -out $NAME.csr
says 'OK' -- openssl req -in $NAME.csr -noout -verify
says -- openssl req -new -x509 -days 30 $engine -key "$key" -subj /CN=$NAME -out $NAME.crt
says -- openssl cms -sign -in letter -signer $NAME.crt $engine -inkey "$key" -out letter.signed
says 'successful' -- openssl cms -verify -in letter.signed -CAfile $NAME.crt -purpose any -out /dev/null
pkcs11-tool --module $MODULE --token-label kst-hardware --read-object --type pubkey --id 02$id --output-file public.der 2>/dev/null
openssl req -new -newkey rsa:2048 -noenc -keyout other.key -subj /CN=mail -out mail.csr 2>/dev/null
says -- openssl x509 -req -in mail.csr -force_pubkey <(openssl pkey -pubin -inform DER -in public.der) -engine pkcs11 -CA $NAME.crt -CAkeyform engine -CAkey "$key" -set_serial 2 -days 30 -out mail.crt
says -- openssl cms -encrypt -aes256 -in letter -out letter.cms mail.crt
says -- openssl cms -decrypt -in letter.cms $engine -inkey "pkcs11:token=kst-hardware;object=$NAME-decrypt;type=private" -recip mail.crt -out letter.dec
cmp <(tr -d '\r' <letter.dec) letter

# GnuTLS: lists, makes a key and a certificate of it, and tests itself with it.
says "object=$NAME-ec;" -- p11tool --provider $MODULE --list-all-privkeys 'pkcs11:token=kst-hardware'
says "object=$NAME-sign;" -- p11tool --provider $MODULE --list-all 'pkcs11:token=kst-software'
GNUTLS_PIN=12345678 says -- p11tool --provider $MODULE --login --generate-privkey=ECDSA --curve=SECP256R1 --label=$NAME-gnutls --outfile=gnutls.pub 'pkcs11:token=kst-software'
printf 'cn = "%s"\nsigning_key\n' $NAME >template
says -- certtool --provider $MODULE --generate-self-signed --load-privkey "pkcs11:token=kst-software;object=$NAME-gnutls;type=private" --load-pubkey "pkcs11:token=kst-software;object=$NAME-gnutls;type=public" --template template --outfile gnutls.crt
says 'OK' -- openssl verify -CAfile gnutls.crt -partial_chain gnutls.crt

says -- certtool --provider $MODULE --generate-request --load-privkey "pkcs11:token=kst-software;object=$NAME-gnutls;type=private" --load-pubkey "pkcs11:token=kst-software;object=$NAME-gnutls;type=public" --template template --outfile gnutls.csr
says 'OK' -- openssl req -in gnutls.csr -noout -verify

# OpenSSH lists public keys of both tokens.
says 'ssh-rsa' 'ecdsa-sha2-nistp256' -- ssh-keygen -D $MODULE

# Java: pairs with certificates, and a request.
slot=$(pkcs11-tool --module $MODULE --list-slots 2>/dev/null | awk '/token label/ { if (/kst-software/) print n + 0; n++ }')
printf 'name = keyward\nlibrary = %s\nslotListIndex = %s\n' $MODULE $slot >java.cfg
java="-keystore NONE -storetype PKCS11 -addprovider SunPKCS11 -providerarg $PWD/java.cfg -storepass none"
says -- keytool -genkeypair -alias $NAME-java-ec -keyalg EC -groupname secp256r1 -dname CN=ec $java
says -- keytool -genkeypair -alias $NAME-java-rsa -keyalg RSA -keysize 2048 -dname CN=rsa $java
says "$NAME-java-ec, PrivateKeyEntry" "$NAME-java-rsa, PrivateKeyEntry" -- keytool -list $java
says -- keytool -certreq -alias $NAME-java-rsa -file java.csr $java
says 'OK' -- openssl req -in java.csr -noout -verify

# NSS: the certificate and its key, a signature with it, and a new key in the token.
rm -rf nss && mkdir nss
says -- certutil -N -d sql:nss --empty-password
says -- modutil -dbdir sql:nss -add keyward -libfile $MODULE -force
openssl x509 -in $NAME.crt -outform DER -out cert.der
says 'Created certificate' -- pkcs11-tool --module $MODULE --token-label kst-hardware --write-object cert.der --type cert --label $NAME-ec --id 03$id
says "$NAME-ec" -- certutil -L -d sql:nss -h kst-hardware
says "$NAME-ec" -- certutil -K -d sql:nss -h kst-hardware
echo 12345678 >pin
head -c 64 /dev/urandom >noise
says -- certutil -R -d sql:nss -h kst-software -k ec -q secp256r1 -s CN=$NAME-nss -a -o nss.csr -f pin -z noise
says 'OK' -- openssl req -in nss.csr -noout -verify
says -- certutil -R -d sql:nss -h kst-hardware -k rsa -g 2048 -s CN=$NAME-nss -a -o nss.csr -f pin -z noise
says 'OK' -- openssl req -in nss.csr -noout -verify
# A request with a key that was there.
says "$NAME-sign" -- certutil -K -d sql:nss -h kst-hardware
nssid=$(sed -n "s/.*rsa *\([0-9a-f]*\) *$NAME-sign.*/\1/p" <<<"$out")
says -- certutil -R -d sql:nss -h kst-hardware -k $nssid -s CN=$NAME-sign -a -o nss.csr -f pin
pkcs11-tool --module $MODULE --token-label kst-hardware --read-object --type pubkey --id 01$id --output-file public.der 2>/dev/null
cmp <(openssl req -in nss.csr -noout -verify -pubkey 2>/dev/null) <(openssl pkey -pubin -inform DER -in public.der)

# A certificate with the key in the token, one for RSASSA-PSS, and both brought along in a file.
says '' -- certutil -S -d sql:nss -h kst-software -k rsa --pss -g 2048 -n $NAME-pss -s CN=$NAME-pss -x -t ,, -f pin -z noise -m 7$id
says "$NAME-pss *u,u,u" -- certutil -L -d sql:nss -h kst-software
env -u OPENSSL_CONF openssl req -new -x509 -key other.key -subj /CN=$NAME-brought -days 30 -out other.crt
env -u OPENSSL_CONF openssl pkcs12 -export -in other.crt -inkey other.key -name $NAME-brought -passout pass:abc -out other.p12
for token in kst-software kst-hardware; do
	says 'IMPORT SUCCESSFUL' -- pk12util -i other.p12 -d sql:nss -h $token -W abc -k pin
	says "$NAME-brought" -- certutil -K -d sql:nss -h $token
done

# What was made goes again, a pair as a whole, and the public half can go first.
says 'Public Key Object' -- pkcs11-tool --module $MODULE --token-label kst-software --login --pin 12345678 --list-objects --type pubkey --id 01$id
says -- pkcs11-tool --module $MODULE --token-label kst-software --login --pin 12345678 --delete-object --type pubkey --id 01$id
says -- pkcs11-tool --module $MODULE --token-label kst-software --login --pin 12345678 --delete-object --type privkey --label $NAME-sign
says "$NAME-decrypt" "!$NAME-sign" -- pkcs11-tool --module $MODULE --token-label kst-software --login --pin 12345678 --list-objects

# With a PIN, programs that do not give it see no private key, and those that give a wrong one are refused.
says -- sh -c 'printf %s%s "the PIN of " "root" | keywardctl principal pin set root --pin-file -'
tool="pkcs11-tool --module $MODULE --token-label kst-hardware"
says '!Private Key' 'Public Key' -- $tool --list-objects
says 'Private Key' -- $tool --login --pin 'the PIN of root' --list-objects
for token in kst-software kst-hardware; do
	says 'No errors' 'all 4 signature functions seem to work' '!ERR' '!failed' -- \
		pkcs11-tool --module $MODULE --token-label $token --login --pin 'the PIN of root' --test --allow-sw
done
! $tool --login --pin 'another PIN' --list-objects >wrong 2>&1
grep -q CKR_PIN_INCORRECT wrong
says 'PIN count low' -- $tool --list-token-slots
says -- openssl dgst -sha256 $engine -sign "$key?pin-value=the%20PIN%20of%20root" -out letter.sig letter
says 'Verified OK' -- openssl dgst -sha256 -verify <(openssl x509 -in $NAME.crt -noout -pubkey) -signature letter.sig letter
says -- $tool --login --pin 'the PIN of root' --change-pin --new-pin 'another PIN'
says 'Private Key' '!count low' -- $tool --login --pin 'another PIN' --list-objects
says -- keywardctl principal pin remove root --yes
says 'Private Key' -- $tool --login --pin anything --list-objects
