@testset "bridge" begin
    spec = """{"layers": [{"kind": "dense", "in_features": 2, "out_features": 3, "activation": "tanh", "bias": true}]}"""
    W, b = randn(2, 3), randn(3)
    chain = UDLBridge.bridge_build(spec, ["0.weight", "0.bias"], [W, b])
    X = randn(2, 4)
    @test UDLBridge.bridge_outputs(chain, X) ≈ tanh.(W' * X .+ b)
    blocks = UDLBridge.bridge_jacobian(chain, X)
    @test size.(blocks) == [(2, 3, 3, 4), (3, 3, 4)] # canonical with reversed axes: (in, out, O, n)

    @testset "a rectangle in foreign memory" begin
        p = UDLBridge.bridge_prepare(chain, X, "trace", 3, "structured", ["0.weight", "0.bias"])
        names = ["0.weight", "0.bias"]
        memory = zeros(4, 2)
        GC.@preserve memory UDLBridge.bridge_fill(
            Float64, UInt(pointer(memory)), (4, 2), p, (2, 3), p, (1, 4), names, false)
        @test memory' ≈ ntk(chain, X)[2:3, :]
        square = fill(NaN, 3, 3)
        GC.@preserve square UDLBridge.bridge_fill(
            Float64, UInt(pointer(square)), (3, 3), p, (2, 4), p, (2, 4), names, true)
        @test LowerTriangular(permutedims(square)) ≈ LowerTriangular(ntk(chain, X)[2:4, 2:4])
    end

    @testset "factors that are not needed any more" begin
        function released() # a frame of its own: nothing else refers to the array
            p = UDLBridge.bridge_prepare(chain, X, "full", 3, "structured", ["0.weight", "0.bias"])
            array = only(p.summands).factor.d
            return p, WeakRef(array), sizeof(array), UDLBridge.bridge_release(p)
        end
        p, held, size, waiting = released()
        @test waiting >= size
        UDLBridge.bridge_collect()
        @test held.value === nothing # though `p`, which Python may keep for a while, is still here
        @test isempty(p.summands)
    end

    @testset "products with the Jacobian" begin
        C = randn(3, 4)
        pulled = UDLBridge.bridge_pull(chain, X, C)
        @test size.(pulled) == [(2, 3), (3,)]
        @test pulled[2] ≈ [sum(blocks[2][q, a, i] * C[a, i] for a in 1:3, i in 1:4) for q in 1:3]
        w = [randn(2, 3), randn(3)]
        @test dot(UDLBridge.bridge_push(chain, X, w, C), ones(4)) ≈ dot(pulled[1], w[1]) + dot(pulled[2], w[2])
    end

    before = BLAS.get_num_threads()
    @test UDLBridge.bridge_threads(before) == before
    # At the start BLAS gets the machine's cores, unless the environment says how many it has.
    unsaid = ("OPENBLAS_NUM_THREADS" => nothing, "GOTO_NUM_THREADS" => nothing, "OMP_NUM_THREADS" => nothing)
    for (setting, count) in ((unsaid, Sys.CPU_THREADS), ((unsaid..., "OMP_NUM_THREADS" => "1"), 1))
        withenv(setting...) do
            BLAS.set_num_threads(1)
            UDLBridge.bridge_start()
            @test BLAS.get_num_threads() == count
        end
    end
    BLAS.set_num_threads(before)
    @test UDLBridge.bridge_versions()["julia"] == string(VERSION)
end
