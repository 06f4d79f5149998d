import java.security.*;
import java.security.spec.*;
import java.util.*;
import java.util.concurrent.*;
import javax.crypto.*;
import javax.crypto.spec.*;

/** Uses keys of a PKCS #11 token through SunPKCS11, from several threads, and checks all with other providers. Arguments: the configuration, aliases of an RSA, an EC and an AES key, and a configuration with "attributes = compatibility". */
public class Keys {
	static Provider p11;
	static int checks;

	static synchronized void check(boolean ok, String what) {
		if (!ok)
			throw new IllegalStateException(what);
		checks++;
	}

	static void sign(PrivateKey key, PublicKey pub, String algorithm, AlgorithmParameterSpec spec) throws Exception {
		byte[] message = new byte[1000];
		ThreadLocalRandom.current().nextBytes(message);
		Signature s = Signature.getInstance(algorithm, p11);
		if (spec != null)
			s.setParameter(spec);
		s.initSign(key);
		s.update(message, 0, 400);
		s.update(message, 400, 600);
		byte[] signature = s.sign();
		Signature v = Signature.getInstance(algorithm);
		if (spec != null)
			v.setParameter(spec);
		v.initVerify(pub);
		v.update(message);
		check(v.verify(signature), algorithm);
	}

	static void aes(SecretKey key, String algorithm, AlgorithmParameterSpec spec, boolean aad) throws Exception {
		byte[] message = new byte[4096];
		ThreadLocalRandom.current().nextBytes(message);
		Cipher c = Cipher.getInstance(algorithm, p11);
		c.init(Cipher.ENCRYPT_MODE, key, spec);
		if (aad)
			c.updateAAD("header".getBytes());
		byte[] ciphertext = c.doFinal(message);
		c.init(Cipher.DECRYPT_MODE, key, spec);
		if (aad)
			c.updateAAD("header".getBytes());
		check(Arrays.equals(message, c.doFinal(ciphertext)), algorithm);
		if (!aad)
			return;
		ciphertext[17] ^= 1;
		c.init(Cipher.DECRYPT_MODE, key, spec);
		c.updateAAD("header".getBytes());
		try {
			c.doFinal(ciphertext);
			check(false, "a changed ciphertext opens");
		} catch (AEADBadTagException | IllegalBlockSizeException | ProviderException e) {
			check(true, "");
		}
	}

	static AlgorithmParameterSpec gcm() {
		byte[] iv = new byte[12];
		ThreadLocalRandom.current().nextBytes(iv);
		return new GCMParameterSpec(128, iv);
	}

	static AlgorithmParameterSpec cbc() {
		byte[] iv = new byte[16];
		ThreadLocalRandom.current().nextBytes(iv);
		return new IvParameterSpec(iv);
	}

	static byte[] agree(KeyAgreement k, PrivateKey mine, PublicKey theirs) throws Exception {
		k.init(mine);
		k.doPhase(theirs, true);
		return k.generateSecret();
	}

	public static void main(String[] args) throws Exception {
		p11 = Security.getProvider("SunPKCS11").configure(args[0]);
		KeyStore store = KeyStore.getInstance("PKCS11", p11);
		store.load(null, null);
		PrivateKey rsa = (PrivateKey) store.getKey(args[1], null), ec = (PrivateKey) store.getKey(args[2], null);
		PublicKey rsaPublic = store.getCertificate(args[1]).getPublicKey(), ecPublic = store.getCertificate(args[2]).getPublicKey();
		SecretKey aes = (SecretKey) store.getKey(args[3], null);
		check(rsa != null && ec != null && aes != null, "a key is missing: " + Collections.list(store.aliases()));
		check(rsa.getEncoded() == null && ec.getEncoded() == null && aes.getEncoded() == null, "a key can be read");

		ExecutorService threads = Executors.newFixedThreadPool(8);
		List<Future<?>> all = new ArrayList<>();
		for (int i = 0; i < 8; i++)
			all.add(threads.submit(() -> {
				for (int j = 0; j < 5; j++) {
					sign(rsa, rsaPublic, "SHA256withRSA", null);
					sign(rsa, rsaPublic, "SHA512withRSA", null);
					sign(rsa, rsaPublic, "RSASSA-PSS", new PSSParameterSpec("SHA-384", "MGF1", MGF1ParameterSpec.SHA384, 48, 1));
					sign(ec, ecPublic, "SHA256withECDSA", null);
					sign(ec, ecPublic, "SHA384withECDSA", null);
					aes(aes, "AES/GCM/NoPadding", gcm(), true);
					aes(aes, "AES/CBC/NoPadding", cbc(), false);
					aes(aes, "AES/CBC/PKCS5Padding", cbc(), false);
					aes(aes, "AES/CTR/NoPadding", cbc(), false);
					aes(aes, "AES/ECB/NoPadding", null, false);
				}
				return null;
			}));
		threads.shutdown();
		try {
			for (Future<?> f : all)
				f.get();
		} finally {
			threads.shutdownNow();
		}

		// Keys that live in the session.
		KeyPairGenerator g = KeyPairGenerator.getInstance("EC", p11);
		g.initialize(new ECGenParameterSpec("secp256r1"));
		KeyPair a = g.generateKeyPair(), b = g.generateKeyPair();
		sign(a.getPrivate(), a.getPublic(), "SHA256withECDSA", null);
		g = KeyPairGenerator.getInstance("RSA", p11);
		g.initialize(2048);
		KeyPair r = g.generateKeyPair();
		sign(r.getPrivate(), r.getPublic(), "SHA256withRSA", null);
		MessageDigest d = MessageDigest.getInstance("SHA-256", p11);
		check(Arrays.equals(d.digest("x".getBytes()), MessageDigest.getInstance("SHA-256").digest("x".getBytes())), "digest");
		SecureRandom random = SecureRandom.getInstance("PKCS11", p11);
		check(random.generateSeed(32).length == 32, "random");

		// What programs agree on and decrypt with such keys they want to have themselves.
		p11 = Security.getProvider("SunPKCS11").configure(args[4]);
		g = KeyPairGenerator.getInstance("EC", p11);
		g.initialize(new ECGenParameterSpec("secp256r1"));
		a = g.generateKeyPair();
		KeyPairGenerator elsewhere = KeyPairGenerator.getInstance("EC", "SunEC");
		elsewhere.initialize(new ECGenParameterSpec("secp256r1"));
		b = elsewhere.generateKeyPair();
		check(Arrays.equals(agree(KeyAgreement.getInstance("ECDH", p11), a.getPrivate(), b.getPublic()), agree(KeyAgreement.getInstance("ECDH", "SunEC"), b.getPrivate(), a.getPublic())), "ECDH");
		g = KeyPairGenerator.getInstance("RSA", p11);
		g.initialize(2048);
		r = g.generateKeyPair();
		sign(r.getPrivate(), r.getPublic(), "SHA256withRSA", null);
		Cipher c = Cipher.getInstance("RSA/ECB/PKCS1Padding", "SunJCE");
		c.init(Cipher.ENCRYPT_MODE, KeyFactory.getInstance("RSA", "SunRsaSign").translateKey(r.getPublic()));
		byte[] sent = c.doFinal("a secret".getBytes());
		c = Cipher.getInstance("RSA/ECB/PKCS1Padding", p11);
		c.init(Cipher.DECRYPT_MODE, r.getPrivate());
		check(new String(c.doFinal(sent)).equals("a secret"), "RSA decryption");
		System.out.println("good: " + checks);
	}
}
