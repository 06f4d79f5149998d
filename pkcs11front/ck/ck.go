// Package ck has the numbers of PKCS #11 (OASIS, versions 2.40 and 3.0) under the standard's own names, each group as a type
// of its own, so that a mechanism can't be given where a return value is meant. It is pure, and knows nobody.
package ck

import "strconv"

// The types of the standard that are numbers (CK_ULONG).
type (
	Mechanism uint64 // CK_MECHANISM_TYPE
	Attribute uint64 // CK_ATTRIBUTE_TYPE
	RV        uint64 // CK_RV
	Class     uint64 // CK_OBJECT_CLASS
	KeyType   uint64 // CK_KEY_TYPE
	Flags     uint64 // CK_FLAGS
	UserType  uint64 // CK_USER_TYPE
	State     uint64 // CK_STATE
)

// Unavailable is CK_UNAVAILABLE_INFORMATION, and the length of an attribute that is not given out.
const Unavailable = ^uint64(0)

// The mechanisms.
const (
	CKM_RSA_PKCS_KEY_PAIR_GEN     Mechanism = 0x0
	CKM_RSA_PKCS                  Mechanism = 0x1
	CKM_RSA_9796                  Mechanism = 0x2
	CKM_RSA_X_509                 Mechanism = 0x3
	CKM_MD5_RSA_PKCS              Mechanism = 0x5
	CKM_SHA1_RSA_PKCS             Mechanism = 0x6
	CKM_RSA_PKCS_OAEP             Mechanism = 0x9
	CKM_RSA_X9_31_KEY_PAIR_GEN    Mechanism = 0xa
	CKM_RSA_X9_31                 Mechanism = 0xb
	CKM_SHA1_RSA_X9_31            Mechanism = 0xc
	CKM_RSA_PKCS_PSS              Mechanism = 0xd
	CKM_SHA1_RSA_PKCS_PSS         Mechanism = 0xe
	CKM_DH_PKCS_KEY_PAIR_GEN      Mechanism = 0x20
	CKM_DH_PKCS_DERIVE            Mechanism = 0x21
	CKM_SHA256_RSA_PKCS           Mechanism = 0x40
	CKM_SHA384_RSA_PKCS           Mechanism = 0x41
	CKM_SHA512_RSA_PKCS           Mechanism = 0x42
	CKM_SHA256_RSA_PKCS_PSS       Mechanism = 0x43
	CKM_SHA384_RSA_PKCS_PSS       Mechanism = 0x44
	CKM_SHA512_RSA_PKCS_PSS       Mechanism = 0x45
	CKM_SHA224_RSA_PKCS           Mechanism = 0x46
	CKM_SHA224_RSA_PKCS_PSS       Mechanism = 0x47
	CKM_SHA512_224                Mechanism = 0x48
	CKM_SHA512_224_HMAC           Mechanism = 0x49
	CKM_SHA512_224_HMAC_GENERAL   Mechanism = 0x4a
	CKM_SHA512_224_KEY_DERIVATION Mechanism = 0x4b
	CKM_SHA512_256                Mechanism = 0x4c
	CKM_SHA512_256_HMAC           Mechanism = 0x4d
	CKM_SHA512_256_HMAC_GENERAL   Mechanism = 0x4e
	CKM_SHA512_256_KEY_DERIVATION Mechanism = 0x4f
	CKM_SHA512_T                  Mechanism = 0x50
	CKM_SHA512_T_HMAC             Mechanism = 0x51
	CKM_SHA512_T_HMAC_GENERAL     Mechanism = 0x52
	CKM_SHA512_T_KEY_DERIVATION   Mechanism = 0x53
	CKM_SHA3_256_RSA_PKCS         Mechanism = 0x60
	CKM_SHA3_384_RSA_PKCS         Mechanism = 0x61
	CKM_SHA3_512_RSA_PKCS         Mechanism = 0x62
	CKM_SHA3_256_RSA_PKCS_PSS     Mechanism = 0x63
	CKM_SHA3_384_RSA_PKCS_PSS     Mechanism = 0x64
	CKM_SHA3_512_RSA_PKCS_PSS     Mechanism = 0x65
	CKM_SHA3_224_RSA_PKCS         Mechanism = 0x66
	CKM_SHA3_224_RSA_PKCS_PSS     Mechanism = 0x67
	CKM_DES_KEY_GEN               Mechanism = 0x120
	CKM_DES_ECB                   Mechanism = 0x121
	CKM_DES_CBC                   Mechanism = 0x122
	CKM_DES_MAC                   Mechanism = 0x123
	CKM_DES_MAC_GENERAL           Mechanism = 0x124
	CKM_DES_CBC_PAD               Mechanism = 0x125
	CKM_DES3_KEY_GEN              Mechanism = 0x131
	CKM_DES3_ECB                  Mechanism = 0x132
	CKM_DES3_CBC                  Mechanism = 0x133
	CKM_DES3_MAC                  Mechanism = 0x134
	CKM_DES3_MAC_GENERAL          Mechanism = 0x135
	CKM_DES3_CBC_PAD              Mechanism = 0x136
	CKM_DES3_CMAC_GENERAL         Mechanism = 0x137
	CKM_DES3_CMAC                 Mechanism = 0x138
	CKM_DES_OFB64                 Mechanism = 0x150
	CKM_DES_OFB8                  Mechanism = 0x151
	CKM_DES_CFB64                 Mechanism = 0x152
	CKM_DES_CFB8                  Mechanism = 0x153
	CKM_MD5                       Mechanism = 0x210
	CKM_MD5_HMAC                  Mechanism = 0x211
	CKM_MD5_HMAC_GENERAL          Mechanism = 0x212
	CKM_SHA_1                     Mechanism = 0x220
	CKM_SHA_1_HMAC                Mechanism = 0x221
	CKM_SHA_1_HMAC_GENERAL        Mechanism = 0x222
	CKM_SHA256                    Mechanism = 0x250
	CKM_SHA256_HMAC               Mechanism = 0x251
	CKM_SHA256_HMAC_GENERAL       Mechanism = 0x252
	CKM_SHA224                    Mechanism = 0x255
	CKM_SHA224_HMAC               Mechanism = 0x256
	CKM_SHA224_HMAC_GENERAL       Mechanism = 0x257
	CKM_SHA384                    Mechanism = 0x260
	CKM_SHA384_HMAC               Mechanism = 0x261
	CKM_SHA384_HMAC_GENERAL       Mechanism = 0x262
	CKM_SHA512                    Mechanism = 0x270
	CKM_SHA512_HMAC               Mechanism = 0x271
	CKM_SHA512_HMAC_GENERAL       Mechanism = 0x272
	CKM_SHA3_256                  Mechanism = 0x2b0
	CKM_SHA3_256_HMAC             Mechanism = 0x2b1
	CKM_SHA3_256_HMAC_GENERAL     Mechanism = 0x2b2
	CKM_SHA3_224                  Mechanism = 0x2b5
	CKM_SHA3_224_HMAC             Mechanism = 0x2b6
	CKM_SHA3_224_HMAC_GENERAL     Mechanism = 0x2b7
	CKM_SHA3_384                  Mechanism = 0x2c0
	CKM_SHA3_384_HMAC             Mechanism = 0x2c1
	CKM_SHA3_384_HMAC_GENERAL     Mechanism = 0x2c2
	CKM_SHA3_512                  Mechanism = 0x2d0
	CKM_SHA3_512_HMAC             Mechanism = 0x2d1
	CKM_SHA3_512_HMAC_GENERAL     Mechanism = 0x2d2
	CKM_GENERIC_SECRET_KEY_GEN    Mechanism = 0x350
	CKM_CONCATENATE_BASE_AND_KEY  Mechanism = 0x360
	CKM_CONCATENATE_BASE_AND_DATA Mechanism = 0x362
	CKM_CONCATENATE_DATA_AND_BASE Mechanism = 0x363
	CKM_XOR_BASE_AND_DATA         Mechanism = 0x364
	CKM_EXTRACT_KEY_FROM_KEY      Mechanism = 0x365
	CKM_MD5_KEY_DERIVATION        Mechanism = 0x390
	CKM_SHA1_KEY_DERIVATION       Mechanism = 0x392
	CKM_SHA256_KEY_DERIVATION     Mechanism = 0x393
	CKM_SHA384_KEY_DERIVATION     Mechanism = 0x394
	CKM_SHA512_KEY_DERIVATION     Mechanism = 0x395
	CKM_SHA224_KEY_DERIVATION     Mechanism = 0x396
	CKM_EC_KEY_PAIR_GEN           Mechanism = 0x1040
	CKM_ECDSA                     Mechanism = 0x1041
	CKM_ECDSA_SHA1                Mechanism = 0x1042
	CKM_ECDSA_SHA224              Mechanism = 0x1043
	CKM_ECDSA_SHA256              Mechanism = 0x1044
	CKM_ECDSA_SHA384              Mechanism = 0x1045
	CKM_ECDSA_SHA512              Mechanism = 0x1046
	CKM_ECDSA_SHA3_224            Mechanism = 0x1047
	CKM_ECDSA_SHA3_256            Mechanism = 0x1048
	CKM_ECDSA_SHA3_384            Mechanism = 0x1049
	CKM_ECDSA_SHA3_512            Mechanism = 0x104a
	CKM_ECDH1_DERIVE              Mechanism = 0x1050
	CKM_ECDH1_COFACTOR_DERIVE     Mechanism = 0x1051
	CKM_ECMQV_DERIVE              Mechanism = 0x1052
	CKM_ECDH_AES_KEY_WRAP         Mechanism = 0x1053
	CKM_RSA_AES_KEY_WRAP          Mechanism = 0x1054
	CKM_EC_EDWARDS_KEY_PAIR_GEN   Mechanism = 0x1055
	CKM_EDDSA                     Mechanism = 0x1057
	CKM_AES_KEY_GEN               Mechanism = 0x1080
	CKM_AES_ECB                   Mechanism = 0x1081
	CKM_AES_CBC                   Mechanism = 0x1082
	CKM_AES_MAC                   Mechanism = 0x1083
	CKM_AES_MAC_GENERAL           Mechanism = 0x1084
	CKM_AES_CBC_PAD               Mechanism = 0x1085
	CKM_AES_CTR                   Mechanism = 0x1086
	CKM_AES_GCM                   Mechanism = 0x1087
	CKM_AES_CCM                   Mechanism = 0x1088
	CKM_AES_CTS                   Mechanism = 0x1089
	CKM_AES_CMAC                  Mechanism = 0x108a
	CKM_AES_CMAC_GENERAL          Mechanism = 0x108b
	CKM_AES_XCBC_MAC              Mechanism = 0x108c
	CKM_AES_XCBC_MAC_96           Mechanism = 0x108d
	CKM_AES_GMAC                  Mechanism = 0x108e
	CKM_DES_ECB_ENCRYPT_DATA      Mechanism = 0x1100
	CKM_DES_CBC_ENCRYPT_DATA      Mechanism = 0x1101
	CKM_DES3_ECB_ENCRYPT_DATA     Mechanism = 0x1102
	CKM_DES3_CBC_ENCRYPT_DATA     Mechanism = 0x1103
	CKM_AES_ECB_ENCRYPT_DATA      Mechanism = 0x1104
	CKM_AES_CBC_ENCRYPT_DATA      Mechanism = 0x1105
	CKM_DH_PKCS_PARAMETER_GEN     Mechanism = 0x2001
	CKM_AES_OFB                   Mechanism = 0x2104
	CKM_AES_CFB64                 Mechanism = 0x2105
	CKM_AES_CFB8                  Mechanism = 0x2106
	CKM_AES_CFB128                Mechanism = 0x2107
	CKM_AES_CFB1                  Mechanism = 0x2108
	CKM_AES_KEY_WRAP              Mechanism = 0x2109
	CKM_AES_KEY_WRAP_PAD          Mechanism = 0x210a
	CKM_AES_KEY_WRAP_KWP          Mechanism = 0x210b
	CKM_AES_KEY_WRAP_PKCS7        Mechanism = 0x210c
	CKM_RSA_PKCS_TPM_1_1          Mechanism = 0x4001
	CKM_RSA_PKCS_OAEP_TPM_1_1     Mechanism = 0x4002
)

var mechanismNames = map[Mechanism]string{
	CKM_RSA_PKCS_KEY_PAIR_GEN:     "CKM_RSA_PKCS_KEY_PAIR_GEN",
	CKM_RSA_PKCS:                  "CKM_RSA_PKCS",
	CKM_RSA_9796:                  "CKM_RSA_9796",
	CKM_RSA_X_509:                 "CKM_RSA_X_509",
	CKM_MD5_RSA_PKCS:              "CKM_MD5_RSA_PKCS",
	CKM_SHA1_RSA_PKCS:             "CKM_SHA1_RSA_PKCS",
	CKM_RSA_PKCS_OAEP:             "CKM_RSA_PKCS_OAEP",
	CKM_RSA_X9_31_KEY_PAIR_GEN:    "CKM_RSA_X9_31_KEY_PAIR_GEN",
	CKM_RSA_X9_31:                 "CKM_RSA_X9_31",
	CKM_SHA1_RSA_X9_31:            "CKM_SHA1_RSA_X9_31",
	CKM_RSA_PKCS_PSS:              "CKM_RSA_PKCS_PSS",
	CKM_SHA1_RSA_PKCS_PSS:         "CKM_SHA1_RSA_PKCS_PSS",
	CKM_DH_PKCS_KEY_PAIR_GEN:      "CKM_DH_PKCS_KEY_PAIR_GEN",
	CKM_DH_PKCS_DERIVE:            "CKM_DH_PKCS_DERIVE",
	CKM_SHA256_RSA_PKCS:           "CKM_SHA256_RSA_PKCS",
	CKM_SHA384_RSA_PKCS:           "CKM_SHA384_RSA_PKCS",
	CKM_SHA512_RSA_PKCS:           "CKM_SHA512_RSA_PKCS",
	CKM_SHA256_RSA_PKCS_PSS:       "CKM_SHA256_RSA_PKCS_PSS",
	CKM_SHA384_RSA_PKCS_PSS:       "CKM_SHA384_RSA_PKCS_PSS",
	CKM_SHA512_RSA_PKCS_PSS:       "CKM_SHA512_RSA_PKCS_PSS",
	CKM_SHA224_RSA_PKCS:           "CKM_SHA224_RSA_PKCS",
	CKM_SHA224_RSA_PKCS_PSS:       "CKM_SHA224_RSA_PKCS_PSS",
	CKM_SHA512_224:                "CKM_SHA512_224",
	CKM_SHA512_224_HMAC:           "CKM_SHA512_224_HMAC",
	CKM_SHA512_224_HMAC_GENERAL:   "CKM_SHA512_224_HMAC_GENERAL",
	CKM_SHA512_224_KEY_DERIVATION: "CKM_SHA512_224_KEY_DERIVATION",
	CKM_SHA512_256:                "CKM_SHA512_256",
	CKM_SHA512_256_HMAC:           "CKM_SHA512_256_HMAC",
	CKM_SHA512_256_HMAC_GENERAL:   "CKM_SHA512_256_HMAC_GENERAL",
	CKM_SHA512_256_KEY_DERIVATION: "CKM_SHA512_256_KEY_DERIVATION",
	CKM_SHA512_T:                  "CKM_SHA512_T",
	CKM_SHA512_T_HMAC:             "CKM_SHA512_T_HMAC",
	CKM_SHA512_T_HMAC_GENERAL:     "CKM_SHA512_T_HMAC_GENERAL",
	CKM_SHA512_T_KEY_DERIVATION:   "CKM_SHA512_T_KEY_DERIVATION",
	CKM_SHA3_256_RSA_PKCS:         "CKM_SHA3_256_RSA_PKCS",
	CKM_SHA3_384_RSA_PKCS:         "CKM_SHA3_384_RSA_PKCS",
	CKM_SHA3_512_RSA_PKCS:         "CKM_SHA3_512_RSA_PKCS",
	CKM_SHA3_256_RSA_PKCS_PSS:     "CKM_SHA3_256_RSA_PKCS_PSS",
	CKM_SHA3_384_RSA_PKCS_PSS:     "CKM_SHA3_384_RSA_PKCS_PSS",
	CKM_SHA3_512_RSA_PKCS_PSS:     "CKM_SHA3_512_RSA_PKCS_PSS",
	CKM_SHA3_224_RSA_PKCS:         "CKM_SHA3_224_RSA_PKCS",
	CKM_SHA3_224_RSA_PKCS_PSS:     "CKM_SHA3_224_RSA_PKCS_PSS",
	CKM_DES_KEY_GEN:               "CKM_DES_KEY_GEN",
	CKM_DES_ECB:                   "CKM_DES_ECB",
	CKM_DES_CBC:                   "CKM_DES_CBC",
	CKM_DES_MAC:                   "CKM_DES_MAC",
	CKM_DES_MAC_GENERAL:           "CKM_DES_MAC_GENERAL",
	CKM_DES_CBC_PAD:               "CKM_DES_CBC_PAD",
	CKM_DES3_KEY_GEN:              "CKM_DES3_KEY_GEN",
	CKM_DES3_ECB:                  "CKM_DES3_ECB",
	CKM_DES3_CBC:                  "CKM_DES3_CBC",
	CKM_DES3_MAC:                  "CKM_DES3_MAC",
	CKM_DES3_MAC_GENERAL:          "CKM_DES3_MAC_GENERAL",
	CKM_DES3_CBC_PAD:              "CKM_DES3_CBC_PAD",
	CKM_DES3_CMAC_GENERAL:         "CKM_DES3_CMAC_GENERAL",
	CKM_DES3_CMAC:                 "CKM_DES3_CMAC",
	CKM_DES_OFB64:                 "CKM_DES_OFB64",
	CKM_DES_OFB8:                  "CKM_DES_OFB8",
	CKM_DES_CFB64:                 "CKM_DES_CFB64",
	CKM_DES_CFB8:                  "CKM_DES_CFB8",
	CKM_MD5:                       "CKM_MD5",
	CKM_MD5_HMAC:                  "CKM_MD5_HMAC",
	CKM_MD5_HMAC_GENERAL:          "CKM_MD5_HMAC_GENERAL",
	CKM_SHA_1:                     "CKM_SHA_1",
	CKM_SHA_1_HMAC:                "CKM_SHA_1_HMAC",
	CKM_SHA_1_HMAC_GENERAL:        "CKM_SHA_1_HMAC_GENERAL",
	CKM_SHA256:                    "CKM_SHA256",
	CKM_SHA256_HMAC:               "CKM_SHA256_HMAC",
	CKM_SHA256_HMAC_GENERAL:       "CKM_SHA256_HMAC_GENERAL",
	CKM_SHA224:                    "CKM_SHA224",
	CKM_SHA224_HMAC:               "CKM_SHA224_HMAC",
	CKM_SHA224_HMAC_GENERAL:       "CKM_SHA224_HMAC_GENERAL",
	CKM_SHA384:                    "CKM_SHA384",
	CKM_SHA384_HMAC:               "CKM_SHA384_HMAC",
	CKM_SHA384_HMAC_GENERAL:       "CKM_SHA384_HMAC_GENERAL",
	CKM_SHA512:                    "CKM_SHA512",
	CKM_SHA512_HMAC:               "CKM_SHA512_HMAC",
	CKM_SHA512_HMAC_GENERAL:       "CKM_SHA512_HMAC_GENERAL",
	CKM_SHA3_256:                  "CKM_SHA3_256",
	CKM_SHA3_256_HMAC:             "CKM_SHA3_256_HMAC",
	CKM_SHA3_256_HMAC_GENERAL:     "CKM_SHA3_256_HMAC_GENERAL",
	CKM_SHA3_224:                  "CKM_SHA3_224",
	CKM_SHA3_224_HMAC:             "CKM_SHA3_224_HMAC",
	CKM_SHA3_224_HMAC_GENERAL:     "CKM_SHA3_224_HMAC_GENERAL",
	CKM_SHA3_384:                  "CKM_SHA3_384",
	CKM_SHA3_384_HMAC:             "CKM_SHA3_384_HMAC",
	CKM_SHA3_384_HMAC_GENERAL:     "CKM_SHA3_384_HMAC_GENERAL",
	CKM_SHA3_512:                  "CKM_SHA3_512",
	CKM_SHA3_512_HMAC:             "CKM_SHA3_512_HMAC",
	CKM_SHA3_512_HMAC_GENERAL:     "CKM_SHA3_512_HMAC_GENERAL",
	CKM_GENERIC_SECRET_KEY_GEN:    "CKM_GENERIC_SECRET_KEY_GEN",
	CKM_CONCATENATE_BASE_AND_KEY:  "CKM_CONCATENATE_BASE_AND_KEY",
	CKM_CONCATENATE_BASE_AND_DATA: "CKM_CONCATENATE_BASE_AND_DATA",
	CKM_CONCATENATE_DATA_AND_BASE: "CKM_CONCATENATE_DATA_AND_BASE",
	CKM_XOR_BASE_AND_DATA:         "CKM_XOR_BASE_AND_DATA",
	CKM_EXTRACT_KEY_FROM_KEY:      "CKM_EXTRACT_KEY_FROM_KEY",
	CKM_MD5_KEY_DERIVATION:        "CKM_MD5_KEY_DERIVATION",
	CKM_SHA1_KEY_DERIVATION:       "CKM_SHA1_KEY_DERIVATION",
	CKM_SHA256_KEY_DERIVATION:     "CKM_SHA256_KEY_DERIVATION",
	CKM_SHA384_KEY_DERIVATION:     "CKM_SHA384_KEY_DERIVATION",
	CKM_SHA512_KEY_DERIVATION:     "CKM_SHA512_KEY_DERIVATION",
	CKM_SHA224_KEY_DERIVATION:     "CKM_SHA224_KEY_DERIVATION",
	CKM_EC_KEY_PAIR_GEN:           "CKM_EC_KEY_PAIR_GEN",
	CKM_ECDSA:                     "CKM_ECDSA",
	CKM_ECDSA_SHA1:                "CKM_ECDSA_SHA1",
	CKM_ECDSA_SHA224:              "CKM_ECDSA_SHA224",
	CKM_ECDSA_SHA256:              "CKM_ECDSA_SHA256",
	CKM_ECDSA_SHA384:              "CKM_ECDSA_SHA384",
	CKM_ECDSA_SHA512:              "CKM_ECDSA_SHA512",
	CKM_ECDSA_SHA3_224:            "CKM_ECDSA_SHA3_224",
	CKM_ECDSA_SHA3_256:            "CKM_ECDSA_SHA3_256",
	CKM_ECDSA_SHA3_384:            "CKM_ECDSA_SHA3_384",
	CKM_ECDSA_SHA3_512:            "CKM_ECDSA_SHA3_512",
	CKM_ECDH1_DERIVE:              "CKM_ECDH1_DERIVE",
	CKM_ECDH1_COFACTOR_DERIVE:     "CKM_ECDH1_COFACTOR_DERIVE",
	CKM_ECMQV_DERIVE:              "CKM_ECMQV_DERIVE",
	CKM_ECDH_AES_KEY_WRAP:         "CKM_ECDH_AES_KEY_WRAP",
	CKM_RSA_AES_KEY_WRAP:          "CKM_RSA_AES_KEY_WRAP",
	CKM_EC_EDWARDS_KEY_PAIR_GEN:   "CKM_EC_EDWARDS_KEY_PAIR_GEN",
	CKM_EDDSA:                     "CKM_EDDSA",
	CKM_AES_KEY_GEN:               "CKM_AES_KEY_GEN",
	CKM_AES_ECB:                   "CKM_AES_ECB",
	CKM_AES_CBC:                   "CKM_AES_CBC",
	CKM_AES_MAC:                   "CKM_AES_MAC",
	CKM_AES_MAC_GENERAL:           "CKM_AES_MAC_GENERAL",
	CKM_AES_CBC_PAD:               "CKM_AES_CBC_PAD",
	CKM_AES_CTR:                   "CKM_AES_CTR",
	CKM_AES_GCM:                   "CKM_AES_GCM",
	CKM_AES_CCM:                   "CKM_AES_CCM",
	CKM_AES_CTS:                   "CKM_AES_CTS",
	CKM_AES_CMAC:                  "CKM_AES_CMAC",
	CKM_AES_CMAC_GENERAL:          "CKM_AES_CMAC_GENERAL",
	CKM_AES_XCBC_MAC:              "CKM_AES_XCBC_MAC",
	CKM_AES_XCBC_MAC_96:           "CKM_AES_XCBC_MAC_96",
	CKM_AES_GMAC:                  "CKM_AES_GMAC",
	CKM_DES_ECB_ENCRYPT_DATA:      "CKM_DES_ECB_ENCRYPT_DATA",
	CKM_DES_CBC_ENCRYPT_DATA:      "CKM_DES_CBC_ENCRYPT_DATA",
	CKM_DES3_ECB_ENCRYPT_DATA:     "CKM_DES3_ECB_ENCRYPT_DATA",
	CKM_DES3_CBC_ENCRYPT_DATA:     "CKM_DES3_CBC_ENCRYPT_DATA",
	CKM_AES_ECB_ENCRYPT_DATA:      "CKM_AES_ECB_ENCRYPT_DATA",
	CKM_AES_CBC_ENCRYPT_DATA:      "CKM_AES_CBC_ENCRYPT_DATA",
	CKM_DH_PKCS_PARAMETER_GEN:     "CKM_DH_PKCS_PARAMETER_GEN",
	CKM_AES_OFB:                   "CKM_AES_OFB",
	CKM_AES_CFB64:                 "CKM_AES_CFB64",
	CKM_AES_CFB8:                  "CKM_AES_CFB8",
	CKM_AES_CFB128:                "CKM_AES_CFB128",
	CKM_AES_CFB1:                  "CKM_AES_CFB1",
	CKM_AES_KEY_WRAP:              "CKM_AES_KEY_WRAP",
	CKM_AES_KEY_WRAP_PAD:          "CKM_AES_KEY_WRAP_PAD",
	CKM_AES_KEY_WRAP_KWP:          "CKM_AES_KEY_WRAP_KWP",
	CKM_AES_KEY_WRAP_PKCS7:        "CKM_AES_KEY_WRAP_PKCS7",
	CKM_RSA_PKCS_TPM_1_1:          "CKM_RSA_PKCS_TPM_1_1",
	CKM_RSA_PKCS_OAEP_TPM_1_1:     "CKM_RSA_PKCS_OAEP_TPM_1_1",
}

// String names the number as the standard does; a number without a name is given as such.
func (m Mechanism) String() string { return name(mechanismNames[m], uint64(m)) }

// The attributes.
const (
	CKA_CLASS                      Attribute = 0x0
	CKA_TOKEN                      Attribute = 0x1
	CKA_PRIVATE                    Attribute = 0x2
	CKA_LABEL                      Attribute = 0x3
	CKA_UNIQUE_ID                  Attribute = 0x4
	CKA_APPLICATION                Attribute = 0x10
	CKA_VALUE                      Attribute = 0x11
	CKA_OBJECT_ID                  Attribute = 0x12
	CKA_CERTIFICATE_TYPE           Attribute = 0x80
	CKA_ISSUER                     Attribute = 0x81
	CKA_SERIAL_NUMBER              Attribute = 0x82
	CKA_AC_ISSUER                  Attribute = 0x83
	CKA_OWNER                      Attribute = 0x84
	CKA_ATTR_TYPES                 Attribute = 0x85
	CKA_TRUSTED                    Attribute = 0x86
	CKA_CERTIFICATE_CATEGORY       Attribute = 0x87
	CKA_JAVA_MIDP_SECURITY_DOMAIN  Attribute = 0x88
	CKA_URL                        Attribute = 0x89
	CKA_HASH_OF_SUBJECT_PUBLIC_KEY Attribute = 0x8a
	CKA_HASH_OF_ISSUER_PUBLIC_KEY  Attribute = 0x8b
	CKA_NAME_HASH_ALGORITHM        Attribute = 0x8c
	CKA_CHECK_VALUE                Attribute = 0x90
	CKA_KEY_TYPE                   Attribute = 0x100
	CKA_SUBJECT                    Attribute = 0x101
	CKA_ID                         Attribute = 0x102
	CKA_SENSITIVE                  Attribute = 0x103
	CKA_ENCRYPT                    Attribute = 0x104
	CKA_DECRYPT                    Attribute = 0x105
	CKA_WRAP                       Attribute = 0x106
	CKA_UNWRAP                     Attribute = 0x107
	CKA_SIGN                       Attribute = 0x108
	CKA_SIGN_RECOVER               Attribute = 0x109
	CKA_VERIFY                     Attribute = 0x10a
	CKA_VERIFY_RECOVER             Attribute = 0x10b
	CKA_DERIVE                     Attribute = 0x10c
	CKA_START_DATE                 Attribute = 0x110
	CKA_END_DATE                   Attribute = 0x111
	CKA_MODULUS                    Attribute = 0x120
	CKA_MODULUS_BITS               Attribute = 0x121
	CKA_PUBLIC_EXPONENT            Attribute = 0x122
	CKA_PRIVATE_EXPONENT           Attribute = 0x123
	CKA_PRIME_1                    Attribute = 0x124
	CKA_PRIME_2                    Attribute = 0x125
	CKA_EXPONENT_1                 Attribute = 0x126
	CKA_EXPONENT_2                 Attribute = 0x127
	CKA_COEFFICIENT                Attribute = 0x128
	CKA_PUBLIC_KEY_INFO            Attribute = 0x129
	CKA_PRIME                      Attribute = 0x130
	CKA_SUBPRIME                   Attribute = 0x131
	CKA_BASE                       Attribute = 0x132
	CKA_PRIME_BITS                 Attribute = 0x133
	CKA_SUBPRIME_BITS              Attribute = 0x134
	CKA_VALUE_BITS                 Attribute = 0x160
	CKA_VALUE_LEN                  Attribute = 0x161
	CKA_EXTRACTABLE                Attribute = 0x162
	CKA_LOCAL                      Attribute = 0x163
	CKA_NEVER_EXTRACTABLE          Attribute = 0x164
	CKA_ALWAYS_SENSITIVE           Attribute = 0x165
	CKA_KEY_GEN_MECHANISM          Attribute = 0x166
	CKA_MODIFIABLE                 Attribute = 0x170
	CKA_COPYABLE                   Attribute = 0x171
	CKA_DESTROYABLE                Attribute = 0x172
	CKA_EC_PARAMS                  Attribute = 0x180
	CKA_EC_POINT                   Attribute = 0x181
	CKA_SECONDARY_AUTH             Attribute = 0x200
	CKA_AUTH_PIN_FLAGS             Attribute = 0x201
	CKA_ALWAYS_AUTHENTICATE        Attribute = 0x202
	CKA_WRAP_WITH_TRUSTED          Attribute = 0x210
	CKA_OTP_FORMAT                 Attribute = 0x220
	CKA_OTP_LENGTH                 Attribute = 0x221
	CKA_OTP_TIME_INTERVAL          Attribute = 0x222
	CKA_OTP_USER_FRIENDLY_MODE     Attribute = 0x223
	CKA_OTP_CHALLENGE_REQUIREMENT  Attribute = 0x224
	CKA_OTP_TIME_REQUIREMENT       Attribute = 0x225
	CKA_OTP_COUNTER_REQUIREMENT    Attribute = 0x226
	CKA_OTP_PIN_REQUIREMENT        Attribute = 0x227
	CKA_OTP_USER_IDENTIFIER        Attribute = 0x22a
	CKA_OTP_SERVICE_IDENTIFIER     Attribute = 0x22b
	CKA_OTP_SERVICE_LOGO           Attribute = 0x22c
	CKA_OTP_SERVICE_LOGO_TYPE      Attribute = 0x22d
	CKA_OTP_COUNTER                Attribute = 0x22e
	CKA_OTP_TIME                   Attribute = 0x22f
	CKA_GOSTR3410_PARAMS           Attribute = 0x250
	CKA_GOSTR3411_PARAMS           Attribute = 0x251
	CKA_GOST28147_PARAMS           Attribute = 0x252
	CKA_HW_FEATURE_TYPE            Attribute = 0x300
	CKA_RESET_ON_INIT              Attribute = 0x301
	CKA_HAS_RESET                  Attribute = 0x302
	CKA_PIXEL_X                    Attribute = 0x400
	CKA_PIXEL_Y                    Attribute = 0x401
	CKA_RESOLUTION                 Attribute = 0x402
	CKA_CHAR_ROWS                  Attribute = 0x403
	CKA_CHAR_COLUMNS               Attribute = 0x404
	CKA_COLOR                      Attribute = 0x405
	CKA_BITS_PER_PIXEL             Attribute = 0x406
	CKA_CHAR_SETS                  Attribute = 0x480
	CKA_ENCODING_METHODS           Attribute = 0x481
	CKA_MIME_TYPES                 Attribute = 0x482
	CKA_MECHANISM_TYPE             Attribute = 0x500
	CKA_REQUIRED_CMS_ATTRIBUTES    Attribute = 0x501
	CKA_DEFAULT_CMS_ATTRIBUTES     Attribute = 0x502
	CKA_SUPPORTED_CMS_ATTRIBUTES   Attribute = 0x503
	CKA_PROFILE_ID                 Attribute = 0x601
	CKA_WRAP_TEMPLATE              Attribute = 0x40000211
	CKA_UNWRAP_TEMPLATE            Attribute = 0x40000212
	CKA_DERIVE_TEMPLATE            Attribute = 0x40000213
	CKA_ALLOWED_MECHANISMS         Attribute = 0x40000600
)

var attributeNames = map[Attribute]string{
	CKA_CLASS:                      "CKA_CLASS",
	CKA_TOKEN:                      "CKA_TOKEN",
	CKA_PRIVATE:                    "CKA_PRIVATE",
	CKA_LABEL:                      "CKA_LABEL",
	CKA_UNIQUE_ID:                  "CKA_UNIQUE_ID",
	CKA_APPLICATION:                "CKA_APPLICATION",
	CKA_VALUE:                      "CKA_VALUE",
	CKA_OBJECT_ID:                  "CKA_OBJECT_ID",
	CKA_CERTIFICATE_TYPE:           "CKA_CERTIFICATE_TYPE",
	CKA_ISSUER:                     "CKA_ISSUER",
	CKA_SERIAL_NUMBER:              "CKA_SERIAL_NUMBER",
	CKA_AC_ISSUER:                  "CKA_AC_ISSUER",
	CKA_OWNER:                      "CKA_OWNER",
	CKA_ATTR_TYPES:                 "CKA_ATTR_TYPES",
	CKA_TRUSTED:                    "CKA_TRUSTED",
	CKA_CERTIFICATE_CATEGORY:       "CKA_CERTIFICATE_CATEGORY",
	CKA_JAVA_MIDP_SECURITY_DOMAIN:  "CKA_JAVA_MIDP_SECURITY_DOMAIN",
	CKA_URL:                        "CKA_URL",
	CKA_HASH_OF_SUBJECT_PUBLIC_KEY: "CKA_HASH_OF_SUBJECT_PUBLIC_KEY",
	CKA_HASH_OF_ISSUER_PUBLIC_KEY:  "CKA_HASH_OF_ISSUER_PUBLIC_KEY",
	CKA_NAME_HASH_ALGORITHM:        "CKA_NAME_HASH_ALGORITHM",
	CKA_CHECK_VALUE:                "CKA_CHECK_VALUE",
	CKA_KEY_TYPE:                   "CKA_KEY_TYPE",
	CKA_SUBJECT:                    "CKA_SUBJECT",
	CKA_ID:                         "CKA_ID",
	CKA_SENSITIVE:                  "CKA_SENSITIVE",
	CKA_ENCRYPT:                    "CKA_ENCRYPT",
	CKA_DECRYPT:                    "CKA_DECRYPT",
	CKA_WRAP:                       "CKA_WRAP",
	CKA_UNWRAP:                     "CKA_UNWRAP",
	CKA_SIGN:                       "CKA_SIGN",
	CKA_SIGN_RECOVER:               "CKA_SIGN_RECOVER",
	CKA_VERIFY:                     "CKA_VERIFY",
	CKA_VERIFY_RECOVER:             "CKA_VERIFY_RECOVER",
	CKA_DERIVE:                     "CKA_DERIVE",
	CKA_START_DATE:                 "CKA_START_DATE",
	CKA_END_DATE:                   "CKA_END_DATE",
	CKA_MODULUS:                    "CKA_MODULUS",
	CKA_MODULUS_BITS:               "CKA_MODULUS_BITS",
	CKA_PUBLIC_EXPONENT:            "CKA_PUBLIC_EXPONENT",
	CKA_PRIVATE_EXPONENT:           "CKA_PRIVATE_EXPONENT",
	CKA_PRIME_1:                    "CKA_PRIME_1",
	CKA_PRIME_2:                    "CKA_PRIME_2",
	CKA_EXPONENT_1:                 "CKA_EXPONENT_1",
	CKA_EXPONENT_2:                 "CKA_EXPONENT_2",
	CKA_COEFFICIENT:                "CKA_COEFFICIENT",
	CKA_PUBLIC_KEY_INFO:            "CKA_PUBLIC_KEY_INFO",
	CKA_PRIME:                      "CKA_PRIME",
	CKA_SUBPRIME:                   "CKA_SUBPRIME",
	CKA_BASE:                       "CKA_BASE",
	CKA_PRIME_BITS:                 "CKA_PRIME_BITS",
	CKA_SUBPRIME_BITS:              "CKA_SUBPRIME_BITS",
	CKA_VALUE_BITS:                 "CKA_VALUE_BITS",
	CKA_VALUE_LEN:                  "CKA_VALUE_LEN",
	CKA_EXTRACTABLE:                "CKA_EXTRACTABLE",
	CKA_LOCAL:                      "CKA_LOCAL",
	CKA_NEVER_EXTRACTABLE:          "CKA_NEVER_EXTRACTABLE",
	CKA_ALWAYS_SENSITIVE:           "CKA_ALWAYS_SENSITIVE",
	CKA_KEY_GEN_MECHANISM:          "CKA_KEY_GEN_MECHANISM",
	CKA_MODIFIABLE:                 "CKA_MODIFIABLE",
	CKA_COPYABLE:                   "CKA_COPYABLE",
	CKA_DESTROYABLE:                "CKA_DESTROYABLE",
	CKA_EC_PARAMS:                  "CKA_EC_PARAMS",
	CKA_EC_POINT:                   "CKA_EC_POINT",
	CKA_SECONDARY_AUTH:             "CKA_SECONDARY_AUTH",
	CKA_AUTH_PIN_FLAGS:             "CKA_AUTH_PIN_FLAGS",
	CKA_ALWAYS_AUTHENTICATE:        "CKA_ALWAYS_AUTHENTICATE",
	CKA_WRAP_WITH_TRUSTED:          "CKA_WRAP_WITH_TRUSTED",
	CKA_OTP_FORMAT:                 "CKA_OTP_FORMAT",
	CKA_OTP_LENGTH:                 "CKA_OTP_LENGTH",
	CKA_OTP_TIME_INTERVAL:          "CKA_OTP_TIME_INTERVAL",
	CKA_OTP_USER_FRIENDLY_MODE:     "CKA_OTP_USER_FRIENDLY_MODE",
	CKA_OTP_CHALLENGE_REQUIREMENT:  "CKA_OTP_CHALLENGE_REQUIREMENT",
	CKA_OTP_TIME_REQUIREMENT:       "CKA_OTP_TIME_REQUIREMENT",
	CKA_OTP_COUNTER_REQUIREMENT:    "CKA_OTP_COUNTER_REQUIREMENT",
	CKA_OTP_PIN_REQUIREMENT:        "CKA_OTP_PIN_REQUIREMENT",
	CKA_OTP_USER_IDENTIFIER:        "CKA_OTP_USER_IDENTIFIER",
	CKA_OTP_SERVICE_IDENTIFIER:     "CKA_OTP_SERVICE_IDENTIFIER",
	CKA_OTP_SERVICE_LOGO:           "CKA_OTP_SERVICE_LOGO",
	CKA_OTP_SERVICE_LOGO_TYPE:      "CKA_OTP_SERVICE_LOGO_TYPE",
	CKA_OTP_COUNTER:                "CKA_OTP_COUNTER",
	CKA_OTP_TIME:                   "CKA_OTP_TIME",
	CKA_GOSTR3410_PARAMS:           "CKA_GOSTR3410_PARAMS",
	CKA_GOSTR3411_PARAMS:           "CKA_GOSTR3411_PARAMS",
	CKA_GOST28147_PARAMS:           "CKA_GOST28147_PARAMS",
	CKA_HW_FEATURE_TYPE:            "CKA_HW_FEATURE_TYPE",
	CKA_RESET_ON_INIT:              "CKA_RESET_ON_INIT",
	CKA_HAS_RESET:                  "CKA_HAS_RESET",
	CKA_PIXEL_X:                    "CKA_PIXEL_X",
	CKA_PIXEL_Y:                    "CKA_PIXEL_Y",
	CKA_RESOLUTION:                 "CKA_RESOLUTION",
	CKA_CHAR_ROWS:                  "CKA_CHAR_ROWS",
	CKA_CHAR_COLUMNS:               "CKA_CHAR_COLUMNS",
	CKA_COLOR:                      "CKA_COLOR",
	CKA_BITS_PER_PIXEL:             "CKA_BITS_PER_PIXEL",
	CKA_CHAR_SETS:                  "CKA_CHAR_SETS",
	CKA_ENCODING_METHODS:           "CKA_ENCODING_METHODS",
	CKA_MIME_TYPES:                 "CKA_MIME_TYPES",
	CKA_MECHANISM_TYPE:             "CKA_MECHANISM_TYPE",
	CKA_REQUIRED_CMS_ATTRIBUTES:    "CKA_REQUIRED_CMS_ATTRIBUTES",
	CKA_DEFAULT_CMS_ATTRIBUTES:     "CKA_DEFAULT_CMS_ATTRIBUTES",
	CKA_SUPPORTED_CMS_ATTRIBUTES:   "CKA_SUPPORTED_CMS_ATTRIBUTES",
	CKA_PROFILE_ID:                 "CKA_PROFILE_ID",
	CKA_WRAP_TEMPLATE:              "CKA_WRAP_TEMPLATE",
	CKA_UNWRAP_TEMPLATE:            "CKA_UNWRAP_TEMPLATE",
	CKA_DERIVE_TEMPLATE:            "CKA_DERIVE_TEMPLATE",
	CKA_ALLOWED_MECHANISMS:         "CKA_ALLOWED_MECHANISMS",
}

// String names the number as the standard does; a number without a name is given as such.
func (a Attribute) String() string { return name(attributeNames[a], uint64(a)) }

// The return values.
const (
	CKR_OK                               RV = 0x0
	CKR_CANCEL                           RV = 0x1
	CKR_HOST_MEMORY                      RV = 0x2
	CKR_SLOT_ID_INVALID                  RV = 0x3
	CKR_GENERAL_ERROR                    RV = 0x5
	CKR_FUNCTION_FAILED                  RV = 0x6
	CKR_ARGUMENTS_BAD                    RV = 0x7
	CKR_NO_EVENT                         RV = 0x8
	CKR_NEED_TO_CREATE_THREADS           RV = 0x9
	CKR_CANT_LOCK                        RV = 0xa
	CKR_ATTRIBUTE_READ_ONLY              RV = 0x10
	CKR_ATTRIBUTE_SENSITIVE              RV = 0x11
	CKR_ATTRIBUTE_TYPE_INVALID           RV = 0x12
	CKR_ATTRIBUTE_VALUE_INVALID          RV = 0x13
	CKR_ACTION_PROHIBITED                RV = 0x1b
	CKR_DATA_INVALID                     RV = 0x20
	CKR_DATA_LEN_RANGE                   RV = 0x21
	CKR_DEVICE_ERROR                     RV = 0x30
	CKR_DEVICE_MEMORY                    RV = 0x31
	CKR_DEVICE_REMOVED                   RV = 0x32
	CKR_ENCRYPTED_DATA_INVALID           RV = 0x40
	CKR_ENCRYPTED_DATA_LEN_RANGE         RV = 0x41
	CKR_AEAD_DECRYPT_FAILED              RV = 0x42
	CKR_FUNCTION_CANCELED                RV = 0x50
	CKR_FUNCTION_NOT_PARALLEL            RV = 0x51
	CKR_FUNCTION_NOT_SUPPORTED           RV = 0x54
	CKR_KEY_HANDLE_INVALID               RV = 0x60
	CKR_KEY_SIZE_RANGE                   RV = 0x62
	CKR_KEY_TYPE_INCONSISTENT            RV = 0x63
	CKR_KEY_NOT_NEEDED                   RV = 0x64
	CKR_KEY_CHANGED                      RV = 0x65
	CKR_KEY_NEEDED                       RV = 0x66
	CKR_KEY_INDIGESTIBLE                 RV = 0x67
	CKR_KEY_FUNCTION_NOT_PERMITTED       RV = 0x68
	CKR_KEY_NOT_WRAPPABLE                RV = 0x69
	CKR_KEY_UNEXTRACTABLE                RV = 0x6a
	CKR_MECHANISM_INVALID                RV = 0x70
	CKR_MECHANISM_PARAM_INVALID          RV = 0x71
	CKR_OBJECT_HANDLE_INVALID            RV = 0x82
	CKR_OPERATION_ACTIVE                 RV = 0x90
	CKR_OPERATION_NOT_INITIALIZED        RV = 0x91
	CKR_PIN_INCORRECT                    RV = 0xa0
	CKR_PIN_INVALID                      RV = 0xa1
	CKR_PIN_LEN_RANGE                    RV = 0xa2
	CKR_PIN_EXPIRED                      RV = 0xa3
	CKR_PIN_LOCKED                       RV = 0xa4
	CKR_SESSION_CLOSED                   RV = 0xb0
	CKR_SESSION_COUNT                    RV = 0xb1
	CKR_SESSION_HANDLE_INVALID           RV = 0xb3
	CKR_SESSION_PARALLEL_NOT_SUPPORTED   RV = 0xb4
	CKR_SESSION_READ_ONLY                RV = 0xb5
	CKR_SESSION_EXISTS                   RV = 0xb6
	CKR_SESSION_READ_ONLY_EXISTS         RV = 0xb7
	CKR_SESSION_READ_WRITE_SO_EXISTS     RV = 0xb8
	CKR_SIGNATURE_INVALID                RV = 0xc0
	CKR_SIGNATURE_LEN_RANGE              RV = 0xc1
	CKR_TEMPLATE_INCOMPLETE              RV = 0xd0
	CKR_TEMPLATE_INCONSISTENT            RV = 0xd1
	CKR_TOKEN_NOT_PRESENT                RV = 0xe0
	CKR_TOKEN_NOT_RECOGNIZED             RV = 0xe1
	CKR_TOKEN_WRITE_PROTECTED            RV = 0xe2
	CKR_UNWRAPPING_KEY_HANDLE_INVALID    RV = 0xf0
	CKR_UNWRAPPING_KEY_SIZE_RANGE        RV = 0xf1
	CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT RV = 0xf2
	CKR_USER_ALREADY_LOGGED_IN           RV = 0x100
	CKR_USER_NOT_LOGGED_IN               RV = 0x101
	CKR_USER_PIN_NOT_INITIALIZED         RV = 0x102
	CKR_USER_TYPE_INVALID                RV = 0x103
	CKR_USER_ANOTHER_ALREADY_LOGGED_IN   RV = 0x104
	CKR_USER_TOO_MANY_TYPES              RV = 0x105
	CKR_WRAPPED_KEY_INVALID              RV = 0x110
	CKR_WRAPPED_KEY_LEN_RANGE            RV = 0x112
	CKR_WRAPPING_KEY_HANDLE_INVALID      RV = 0x113
	CKR_WRAPPING_KEY_SIZE_RANGE          RV = 0x114
	CKR_WRAPPING_KEY_TYPE_INCONSISTENT   RV = 0x115
	CKR_RANDOM_SEED_NOT_SUPPORTED        RV = 0x120
	CKR_RANDOM_NO_RNG                    RV = 0x121
	CKR_DOMAIN_PARAMS_INVALID            RV = 0x130
	CKR_CURVE_NOT_SUPPORTED              RV = 0x140
	CKR_BUFFER_TOO_SMALL                 RV = 0x150
	CKR_SAVED_STATE_INVALID              RV = 0x160
	CKR_INFORMATION_SENSITIVE            RV = 0x170
	CKR_STATE_UNSAVEABLE                 RV = 0x180
	CKR_CRYPTOKI_NOT_INITIALIZED         RV = 0x190
	CKR_CRYPTOKI_ALREADY_INITIALIZED     RV = 0x191
	CKR_MUTEX_BAD                        RV = 0x1a0
	CKR_MUTEX_NOT_LOCKED                 RV = 0x1a1
	CKR_NEW_PIN_MODE                     RV = 0x1b0
	CKR_NEXT_OTP                         RV = 0x1b1
	CKR_EXCEEDED_MAX_ITERATIONS          RV = 0x1c0
	CKR_FIPS_SELF_TEST_FAILED            RV = 0x1c1
	CKR_LIBRARY_LOAD_FAILED              RV = 0x1c2
	CKR_PIN_TOO_WEAK                     RV = 0x1c3
	CKR_PUBLIC_KEY_INVALID               RV = 0x1c4
	CKR_FUNCTION_REJECTED                RV = 0x200
	CKR_TOKEN_RESOURCE_EXCEEDED          RV = 0x201
	CKR_OPERATION_CANCEL_FAILED          RV = 0x202
)

var rvNames = map[RV]string{
	CKR_OK:                               "CKR_OK",
	CKR_CANCEL:                           "CKR_CANCEL",
	CKR_HOST_MEMORY:                      "CKR_HOST_MEMORY",
	CKR_SLOT_ID_INVALID:                  "CKR_SLOT_ID_INVALID",
	CKR_GENERAL_ERROR:                    "CKR_GENERAL_ERROR",
	CKR_FUNCTION_FAILED:                  "CKR_FUNCTION_FAILED",
	CKR_ARGUMENTS_BAD:                    "CKR_ARGUMENTS_BAD",
	CKR_NO_EVENT:                         "CKR_NO_EVENT",
	CKR_NEED_TO_CREATE_THREADS:           "CKR_NEED_TO_CREATE_THREADS",
	CKR_CANT_LOCK:                        "CKR_CANT_LOCK",
	CKR_ATTRIBUTE_READ_ONLY:              "CKR_ATTRIBUTE_READ_ONLY",
	CKR_ATTRIBUTE_SENSITIVE:              "CKR_ATTRIBUTE_SENSITIVE",
	CKR_ATTRIBUTE_TYPE_INVALID:           "CKR_ATTRIBUTE_TYPE_INVALID",
	CKR_ATTRIBUTE_VALUE_INVALID:          "CKR_ATTRIBUTE_VALUE_INVALID",
	CKR_ACTION_PROHIBITED:                "CKR_ACTION_PROHIBITED",
	CKR_DATA_INVALID:                     "CKR_DATA_INVALID",
	CKR_DATA_LEN_RANGE:                   "CKR_DATA_LEN_RANGE",
	CKR_DEVICE_ERROR:                     "CKR_DEVICE_ERROR",
	CKR_DEVICE_MEMORY:                    "CKR_DEVICE_MEMORY",
	CKR_DEVICE_REMOVED:                   "CKR_DEVICE_REMOVED",
	CKR_ENCRYPTED_DATA_INVALID:           "CKR_ENCRYPTED_DATA_INVALID",
	CKR_ENCRYPTED_DATA_LEN_RANGE:         "CKR_ENCRYPTED_DATA_LEN_RANGE",
	CKR_AEAD_DECRYPT_FAILED:              "CKR_AEAD_DECRYPT_FAILED",
	CKR_FUNCTION_CANCELED:                "CKR_FUNCTION_CANCELED",
	CKR_FUNCTION_NOT_PARALLEL:            "CKR_FUNCTION_NOT_PARALLEL",
	CKR_FUNCTION_NOT_SUPPORTED:           "CKR_FUNCTION_NOT_SUPPORTED",
	CKR_KEY_HANDLE_INVALID:               "CKR_KEY_HANDLE_INVALID",
	CKR_KEY_SIZE_RANGE:                   "CKR_KEY_SIZE_RANGE",
	CKR_KEY_TYPE_INCONSISTENT:            "CKR_KEY_TYPE_INCONSISTENT",
	CKR_KEY_NOT_NEEDED:                   "CKR_KEY_NOT_NEEDED",
	CKR_KEY_CHANGED:                      "CKR_KEY_CHANGED",
	CKR_KEY_NEEDED:                       "CKR_KEY_NEEDED",
	CKR_KEY_INDIGESTIBLE:                 "CKR_KEY_INDIGESTIBLE",
	CKR_KEY_FUNCTION_NOT_PERMITTED:       "CKR_KEY_FUNCTION_NOT_PERMITTED",
	CKR_KEY_NOT_WRAPPABLE:                "CKR_KEY_NOT_WRAPPABLE",
	CKR_KEY_UNEXTRACTABLE:                "CKR_KEY_UNEXTRACTABLE",
	CKR_MECHANISM_INVALID:                "CKR_MECHANISM_INVALID",
	CKR_MECHANISM_PARAM_INVALID:          "CKR_MECHANISM_PARAM_INVALID",
	CKR_OBJECT_HANDLE_INVALID:            "CKR_OBJECT_HANDLE_INVALID",
	CKR_OPERATION_ACTIVE:                 "CKR_OPERATION_ACTIVE",
	CKR_OPERATION_NOT_INITIALIZED:        "CKR_OPERATION_NOT_INITIALIZED",
	CKR_PIN_INCORRECT:                    "CKR_PIN_INCORRECT",
	CKR_PIN_INVALID:                      "CKR_PIN_INVALID",
	CKR_PIN_LEN_RANGE:                    "CKR_PIN_LEN_RANGE",
	CKR_PIN_EXPIRED:                      "CKR_PIN_EXPIRED",
	CKR_PIN_LOCKED:                       "CKR_PIN_LOCKED",
	CKR_SESSION_CLOSED:                   "CKR_SESSION_CLOSED",
	CKR_SESSION_COUNT:                    "CKR_SESSION_COUNT",
	CKR_SESSION_HANDLE_INVALID:           "CKR_SESSION_HANDLE_INVALID",
	CKR_SESSION_PARALLEL_NOT_SUPPORTED:   "CKR_SESSION_PARALLEL_NOT_SUPPORTED",
	CKR_SESSION_READ_ONLY:                "CKR_SESSION_READ_ONLY",
	CKR_SESSION_EXISTS:                   "CKR_SESSION_EXISTS",
	CKR_SESSION_READ_ONLY_EXISTS:         "CKR_SESSION_READ_ONLY_EXISTS",
	CKR_SESSION_READ_WRITE_SO_EXISTS:     "CKR_SESSION_READ_WRITE_SO_EXISTS",
	CKR_SIGNATURE_INVALID:                "CKR_SIGNATURE_INVALID",
	CKR_SIGNATURE_LEN_RANGE:              "CKR_SIGNATURE_LEN_RANGE",
	CKR_TEMPLATE_INCOMPLETE:              "CKR_TEMPLATE_INCOMPLETE",
	CKR_TEMPLATE_INCONSISTENT:            "CKR_TEMPLATE_INCONSISTENT",
	CKR_TOKEN_NOT_PRESENT:                "CKR_TOKEN_NOT_PRESENT",
	CKR_TOKEN_NOT_RECOGNIZED:             "CKR_TOKEN_NOT_RECOGNIZED",
	CKR_TOKEN_WRITE_PROTECTED:            "CKR_TOKEN_WRITE_PROTECTED",
	CKR_UNWRAPPING_KEY_HANDLE_INVALID:    "CKR_UNWRAPPING_KEY_HANDLE_INVALID",
	CKR_UNWRAPPING_KEY_SIZE_RANGE:        "CKR_UNWRAPPING_KEY_SIZE_RANGE",
	CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
	CKR_USER_ALREADY_LOGGED_IN:           "CKR_USER_ALREADY_LOGGED_IN",
	CKR_USER_NOT_LOGGED_IN:               "CKR_USER_NOT_LOGGED_IN",
	CKR_USER_PIN_NOT_INITIALIZED:         "CKR_USER_PIN_NOT_INITIALIZED",
	CKR_USER_TYPE_INVALID:                "CKR_USER_TYPE_INVALID",
	CKR_USER_ANOTHER_ALREADY_LOGGED_IN:   "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
	CKR_USER_TOO_MANY_TYPES:              "CKR_USER_TOO_MANY_TYPES",
	CKR_WRAPPED_KEY_INVALID:              "CKR_WRAPPED_KEY_INVALID",
	CKR_WRAPPED_KEY_LEN_RANGE:            "CKR_WRAPPED_KEY_LEN_RANGE",
	CKR_WRAPPING_KEY_HANDLE_INVALID:      "CKR_WRAPPING_KEY_HANDLE_INVALID",
	CKR_WRAPPING_KEY_SIZE_RANGE:          "CKR_WRAPPING_KEY_SIZE_RANGE",
	CKR_WRAPPING_KEY_TYPE_INCONSISTENT:   "CKR_WRAPPING_KEY_TYPE_INCONSISTENT",
	CKR_RANDOM_SEED_NOT_SUPPORTED:        "CKR_RANDOM_SEED_NOT_SUPPORTED",
	CKR_RANDOM_NO_RNG:                    "CKR_RANDOM_NO_RNG",
	CKR_DOMAIN_PARAMS_INVALID:            "CKR_DOMAIN_PARAMS_INVALID",
	CKR_CURVE_NOT_SUPPORTED:              "CKR_CURVE_NOT_SUPPORTED",
	CKR_BUFFER_TOO_SMALL:                 "CKR_BUFFER_TOO_SMALL",
	CKR_SAVED_STATE_INVALID:              "CKR_SAVED_STATE_INVALID",
	CKR_INFORMATION_SENSITIVE:            "CKR_INFORMATION_SENSITIVE",
	CKR_STATE_UNSAVEABLE:                 "CKR_STATE_UNSAVEABLE",
	CKR_CRYPTOKI_NOT_INITIALIZED:         "CKR_CRYPTOKI_NOT_INITIALIZED",
	CKR_CRYPTOKI_ALREADY_INITIALIZED:     "CKR_CRYPTOKI_ALREADY_INITIALIZED",
	CKR_MUTEX_BAD:                        "CKR_MUTEX_BAD",
	CKR_MUTEX_NOT_LOCKED:                 "CKR_MUTEX_NOT_LOCKED",
	CKR_NEW_PIN_MODE:                     "CKR_NEW_PIN_MODE",
	CKR_NEXT_OTP:                         "CKR_NEXT_OTP",
	CKR_EXCEEDED_MAX_ITERATIONS:          "CKR_EXCEEDED_MAX_ITERATIONS",
	CKR_FIPS_SELF_TEST_FAILED:            "CKR_FIPS_SELF_TEST_FAILED",
	CKR_LIBRARY_LOAD_FAILED:              "CKR_LIBRARY_LOAD_FAILED",
	CKR_PIN_TOO_WEAK:                     "CKR_PIN_TOO_WEAK",
	CKR_PUBLIC_KEY_INVALID:               "CKR_PUBLIC_KEY_INVALID",
	CKR_FUNCTION_REJECTED:                "CKR_FUNCTION_REJECTED",
	CKR_TOKEN_RESOURCE_EXCEEDED:          "CKR_TOKEN_RESOURCE_EXCEEDED",
	CKR_OPERATION_CANCEL_FAILED:          "CKR_OPERATION_CANCEL_FAILED",
}

// String names the number as the standard does; a number without a name is given as such.
func (r RV) String() string { return name(rvNames[r], uint64(r)) }

// The object classes.
const (
	CKO_DATA              Class = 0x0
	CKO_CERTIFICATE       Class = 0x1
	CKO_PUBLIC_KEY        Class = 0x2
	CKO_PRIVATE_KEY       Class = 0x3
	CKO_SECRET_KEY        Class = 0x4
	CKO_HW_FEATURE        Class = 0x5
	CKO_DOMAIN_PARAMETERS Class = 0x6
	CKO_MECHANISM         Class = 0x7
	CKO_OTP_KEY           Class = 0x8
	CKO_PROFILE           Class = 0x9
)

var classNames = map[Class]string{
	CKO_DATA:              "CKO_DATA",
	CKO_CERTIFICATE:       "CKO_CERTIFICATE",
	CKO_PUBLIC_KEY:        "CKO_PUBLIC_KEY",
	CKO_PRIVATE_KEY:       "CKO_PRIVATE_KEY",
	CKO_SECRET_KEY:        "CKO_SECRET_KEY",
	CKO_HW_FEATURE:        "CKO_HW_FEATURE",
	CKO_DOMAIN_PARAMETERS: "CKO_DOMAIN_PARAMETERS",
	CKO_MECHANISM:         "CKO_MECHANISM",
	CKO_OTP_KEY:           "CKO_OTP_KEY",
	CKO_PROFILE:           "CKO_PROFILE",
}

// String names the number as the standard does; a number without a name is given as such.
func (c Class) String() string { return name(classNames[c], uint64(c)) }

// The key types.
const (
	CKK_RSA            KeyType = 0x0
	CKK_DSA            KeyType = 0x1
	CKK_DH             KeyType = 0x2
	CKK_EC             KeyType = 0x3
	CKK_X9_42_DH       KeyType = 0x4
	CKK_KEA            KeyType = 0x5
	CKK_GENERIC_SECRET KeyType = 0x10
	CKK_RC2            KeyType = 0x11
	CKK_RC4            KeyType = 0x12
	CKK_DES            KeyType = 0x13
	CKK_DES2           KeyType = 0x14
	CKK_DES3           KeyType = 0x15
	CKK_CAST           KeyType = 0x16
	CKK_CAST3          KeyType = 0x17
	CKK_CAST128        KeyType = 0x18
	CKK_RC5            KeyType = 0x19
	CKK_IDEA           KeyType = 0x1a
	CKK_SKIPJACK       KeyType = 0x1b
	CKK_BATON          KeyType = 0x1c
	CKK_JUNIPER        KeyType = 0x1d
	CKK_CDMF           KeyType = 0x1e
	CKK_AES            KeyType = 0x1f
	CKK_BLOWFISH       KeyType = 0x20
	CKK_TWOFISH        KeyType = 0x21
	CKK_SECURID        KeyType = 0x22
	CKK_HOTP           KeyType = 0x23
	CKK_ACTI           KeyType = 0x24
	CKK_CAMELLIA       KeyType = 0x25
	CKK_ARIA           KeyType = 0x26
	CKK_MD5_HMAC       KeyType = 0x27
	CKK_SHA_1_HMAC     KeyType = 0x28
	CKK_RIPEMD128_HMAC KeyType = 0x29
	CKK_RIPEMD160_HMAC KeyType = 0x2a
	CKK_SHA256_HMAC    KeyType = 0x2b
	CKK_SHA384_HMAC    KeyType = 0x2c
	CKK_SHA512_HMAC    KeyType = 0x2d
	CKK_SHA224_HMAC    KeyType = 0x2e
	CKK_SEED           KeyType = 0x2f
	CKK_GOSTR3410      KeyType = 0x30
	CKK_GOSTR3411      KeyType = 0x31
	CKK_GOST28147      KeyType = 0x32
	CKK_EC_EDWARDS     KeyType = 0x40
)

var keyTypeNames = map[KeyType]string{
	CKK_RSA:            "CKK_RSA",
	CKK_DSA:            "CKK_DSA",
	CKK_DH:             "CKK_DH",
	CKK_EC:             "CKK_EC",
	CKK_X9_42_DH:       "CKK_X9_42_DH",
	CKK_KEA:            "CKK_KEA",
	CKK_GENERIC_SECRET: "CKK_GENERIC_SECRET",
	CKK_RC2:            "CKK_RC2",
	CKK_RC4:            "CKK_RC4",
	CKK_DES:            "CKK_DES",
	CKK_DES2:           "CKK_DES2",
	CKK_DES3:           "CKK_DES3",
	CKK_CAST:           "CKK_CAST",
	CKK_CAST3:          "CKK_CAST3",
	CKK_CAST128:        "CKK_CAST128",
	CKK_RC5:            "CKK_RC5",
	CKK_IDEA:           "CKK_IDEA",
	CKK_SKIPJACK:       "CKK_SKIPJACK",
	CKK_BATON:          "CKK_BATON",
	CKK_JUNIPER:        "CKK_JUNIPER",
	CKK_CDMF:           "CKK_CDMF",
	CKK_AES:            "CKK_AES",
	CKK_BLOWFISH:       "CKK_BLOWFISH",
	CKK_TWOFISH:        "CKK_TWOFISH",
	CKK_SECURID:        "CKK_SECURID",
	CKK_HOTP:           "CKK_HOTP",
	CKK_ACTI:           "CKK_ACTI",
	CKK_CAMELLIA:       "CKK_CAMELLIA",
	CKK_ARIA:           "CKK_ARIA",
	CKK_MD5_HMAC:       "CKK_MD5_HMAC",
	CKK_SHA_1_HMAC:     "CKK_SHA_1_HMAC",
	CKK_RIPEMD128_HMAC: "CKK_RIPEMD128_HMAC",
	CKK_RIPEMD160_HMAC: "CKK_RIPEMD160_HMAC",
	CKK_SHA256_HMAC:    "CKK_SHA256_HMAC",
	CKK_SHA384_HMAC:    "CKK_SHA384_HMAC",
	CKK_SHA512_HMAC:    "CKK_SHA512_HMAC",
	CKK_SHA224_HMAC:    "CKK_SHA224_HMAC",
	CKK_SEED:           "CKK_SEED",
	CKK_GOSTR3410:      "CKK_GOSTR3410",
	CKK_GOSTR3411:      "CKK_GOSTR3411",
	CKK_GOST28147:      "CKK_GOST28147",
	CKK_EC_EDWARDS:     "CKK_EC_EDWARDS",
}

// String names the number as the standard does; a number without a name is given as such.
func (k KeyType) String() string { return name(keyTypeNames[k], uint64(k)) }

func name(known string, n uint64) string {
	if known != "" {
		return known
	}
	return "0x" + strconv.FormatUint(n, 16)
}

// Error lets a return value be an error. CKR_OK is none: nobody returns it as one.
func (r RV) Error() string { return r.String() }

// The flags. Which field one belongs to, the standard says; the same bit means different things in different fields.
const (
	CKF_TOKEN_PRESENT                  Flags = 0x1
	CKF_REMOVABLE_DEVICE               Flags = 0x2
	CKF_HW_SLOT                        Flags = 0x4
	CKF_RNG                            Flags = 0x1
	CKF_WRITE_PROTECTED                Flags = 0x2
	CKF_LOGIN_REQUIRED                 Flags = 0x4
	CKF_USER_PIN_INITIALIZED           Flags = 0x8
	CKF_RESTORE_KEY_NOT_NEEDED         Flags = 0x20
	CKF_CLOCK_ON_TOKEN                 Flags = 0x40
	CKF_PROTECTED_AUTHENTICATION_PATH  Flags = 0x100
	CKF_DUAL_CRYPTO_OPERATIONS         Flags = 0x200
	CKF_TOKEN_INITIALIZED              Flags = 0x400
	CKF_USER_PIN_COUNT_LOW             Flags = 0x10000
	CKF_USER_PIN_FINAL_TRY             Flags = 0x20000
	CKF_USER_PIN_LOCKED                Flags = 0x40000
	CKF_USER_PIN_TO_BE_CHANGED         Flags = 0x80000
	CKF_SO_PIN_COUNT_LOW               Flags = 0x100000
	CKF_SO_PIN_FINAL_TRY               Flags = 0x200000
	CKF_SO_PIN_LOCKED                  Flags = 0x400000
	CKF_SO_PIN_TO_BE_CHANGED           Flags = 0x800000
	CKF_RW_SESSION                     Flags = 0x2
	CKF_SERIAL_SESSION                 Flags = 0x4
	CKF_HW                             Flags = 0x1
	CKF_ENCRYPT                        Flags = 0x100
	CKF_DECRYPT                        Flags = 0x200
	CKF_DIGEST                         Flags = 0x400
	CKF_SIGN                           Flags = 0x800
	CKF_SIGN_RECOVER                   Flags = 0x1000
	CKF_VERIFY                         Flags = 0x2000
	CKF_VERIFY_RECOVER                 Flags = 0x4000
	CKF_GENERATE                       Flags = 0x8000
	CKF_GENERATE_KEY_PAIR              Flags = 0x10000
	CKF_WRAP                           Flags = 0x20000
	CKF_UNWRAP                         Flags = 0x40000
	CKF_DERIVE                         Flags = 0x80000
	CKF_EC_F_P                         Flags = 0x100000
	CKF_EC_UNCOMPRESS                  Flags = 0x1000000
	CKF_EC_COMPRESS                    Flags = 0x2000000
	CKF_DONT_BLOCK                     Flags = 0x1
	CKF_LIBRARY_CANT_CREATE_OS_THREADS Flags = 0x1
	CKF_OS_LOCKING_OK                  Flags = 0x2
	CKF_MESSAGE_ENCRYPT                Flags = 0x2
	CKF_MESSAGE_DECRYPT                Flags = 0x4
	CKF_MESSAGE_SIGN                   Flags = 0x8
	CKF_MESSAGE_VERIFY                 Flags = 0x10
	CKF_FIND_OBJECTS                   Flags = 0x40
	CKF_EC_OID                         Flags = 0x800000
	CKF_INTERFACE_FORK_SAFE            Flags = 0x1
	CKF_SEED_RANDOM_REQUIRED           Flags = 0x2000000
	CKF_ERROR_STATE                    Flags = 0x1000000
	CKF_END_OF_MESSAGE                 Flags = 0x1
)

// User types.
const (
	CKU_SO               UserType = 0
	CKU_USER             UserType = 1
	CKU_CONTEXT_SPECIFIC UserType = 2
)

// States of a session.
const (
	CKS_RO_PUBLIC_SESSION State = 0
	CKS_RO_USER_FUNCTIONS State = 1
	CKS_RW_PUBLIC_SESSION State = 2
	CKS_RW_USER_FUNCTIONS State = 3
	CKS_RW_SO_FUNCTIONS   State = 4
)

// Other numbers: mask generation functions, key derivation functions, the source of an OAEP label, certificate types, IV generators (3.0).
const (
	CKG_MGF1_SHA1            uint64 = 1
	CKG_MGF1_SHA224          uint64 = 5
	CKG_MGF1_SHA256          uint64 = 2
	CKG_MGF1_SHA384          uint64 = 3
	CKG_MGF1_SHA512          uint64 = 4
	CKG_MGF1_SHA3_224        uint64 = 6
	CKG_MGF1_SHA3_256        uint64 = 7
	CKG_MGF1_SHA3_384        uint64 = 8
	CKG_MGF1_SHA3_512        uint64 = 9
	CKG_NO_GENERATE          uint64 = 0
	CKG_GENERATE             uint64 = 1
	CKG_GENERATE_COUNTER     uint64 = 2
	CKG_GENERATE_RANDOM      uint64 = 3
	CKD_NULL                 uint64 = 1
	CKD_SHA1_KDF             uint64 = 2
	CKD_SHA1_KDF_ASN1        uint64 = 3
	CKD_SHA1_KDF_CONCATENATE uint64 = 4
	CKD_SHA224_KDF           uint64 = 5
	CKD_SHA256_KDF           uint64 = 6
	CKD_SHA384_KDF           uint64 = 7
	CKD_SHA512_KDF           uint64 = 8
	CKD_CPDIVERSIFY_KDF      uint64 = 9
	CKZ_DATA_SPECIFIED       uint64 = 1
	CKC_X_509                uint64 = 0
	CKC_X_509_ATTR_CERT      uint64 = 1
	CKC_WTLS                 uint64 = 2
)
